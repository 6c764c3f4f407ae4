"""BacklogPolicy: what waits and what arrives, against a replica's capacity at each tier's target (``sizing.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..size import size

if TYPE_CHECKING:
    from ...observation import Memory, Observation
    from ..size import Size


class BacklogPolicy:
    """By queueing alone; nothing is remembered."""

    name = "backlog"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """As :class:`~autoscaler.sizing.policy.Policy` has it."""
        idle_s = seen.settings.scaling.idle_s
        return {name: size(seen.settings.models[name], one, idle_s) for name, one in seen.demands.items()}, memory
