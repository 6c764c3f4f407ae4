"""The policy ``backlog``: queued and arriving jobs against a replica's capacity and each tier's target
(``size.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..size import size

if TYPE_CHECKING:
    from ...observation import Memory, Observation
    from ..size import Size


class BacklogPolicy:
    """Sizes models by their backlog alone, without memory."""

    name = "backlog"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """See :class:`~autoscaler.sizing.policy_registry.Policy`."""
        idle_s = seen.settings.scaling.idle_s
        return {name: size(seen.settings.models[name], one, idle_s) for name, one in seen.demands.items()}, memory
