"""The registry of scaling policies: each turns demand into a number of replicas for every model.

Removal, shrinking and placement are the same for all policies (``actions/``), so that policies differ in their sizes
alone, live and in the simulator.
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
    """A rule for the number of replicas. Pure: the time is in the observation, its state in the memory."""

    @property
    def name(self) -> str:
        """The name in the fleet file."""

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """The replicas wanted of every model whose demand is known, and the memory for the next round."""


def named(name: str) -> Policy:
    """The policy of that name.

    Raises:
        ConfigError: there is none of that name; it lists the others.
    """
    try:
        return POLICIES[name]
    except KeyError:
        raise ConfigError(f"no scaling policy {name!r}; allowed: {', '.join(POLICIES)}") from None


BACKLOG, SLACK = BacklogPolicy(), SlackPolicy()
POLICIES: dict[str, Policy] = {
    policy.name: policy for policy in (SLACK, BACKLOG, ForecastPolicy(), TargetTrackingPolicy(), ThresholdPolicy())
}
