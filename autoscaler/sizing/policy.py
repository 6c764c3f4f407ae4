"""The scaling policies by name: each says how many replicas every model should have.

Everything else is the same for all of them: what must go (``removal.py``), who is drained (``shrink.py``), where a new
replica goes (``placement.py``). So live and in the simulator they differ in their sizes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from producer.contract.errors import ConfigError

from .policies.backlog import BacklogPolicy
from .policies.forecast import ForecastPolicy
from .policies.slack import SlackPolicy
from .policies.target_tracking import TargetTrackingPolicy
from .policies.threshold import ThresholdPolicy

if TYPE_CHECKING:
    from ..observation import Memory, Observation
    from .size import Size


class Policy(Protocol):
    """How many replicas. Pure: time is in the observation, and what it must remember in the memory."""

    @property
    def name(self) -> str:
        """By which people choose it."""

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """The replicas wanted of every model whose demand could be told, and what to remember."""


def named(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ConfigError: naming those there are.
    """
    try:
        return POLICIES[name]
    except KeyError:
        raise ConfigError(f"no scaling policy {name!r}; allowed: {', '.join(POLICIES)}") from None


BACKLOG, SLACK = BacklogPolicy(), SlackPolicy()
POLICIES: dict[str, Policy] = {
    policy.name: policy for policy in (SLACK, BACKLOG, ForecastPolicy(), TargetTrackingPolicy(), ThresholdPolicy())
}
