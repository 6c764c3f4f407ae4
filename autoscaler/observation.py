"""Observation: the input of a round's decisions, and the memory of the rounds before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .actions import backoff

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

    from .actions.backoff import Backoff
    from .devices.device import Device
    from .roster import Worker
    from .sizing.demand import Demand
    from .sizing.history import History
    from .sizing.size import Size


@dataclass(frozen=True, slots=True)
class Observation:
    """The fleet at ``now`` (Unix seconds). ``demands`` holds each model of the settings whose demand is known."""

    now: float
    settings: Settings
    demands: Mapping[str, Demand]
    devices: Sequence[Device]
    workers: Sequence[Worker]


@dataclass(frozen=True, slots=True)
class Surplus:
    """Since when a model has had a surplus (Unix seconds), and the most replicas that it needed since."""

    since: float
    needed: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What one round passes to the next. An empty memory is safe: it delays decisions and never hastens them.

    ``started_at``, ``surplus`` and ``failures`` are by model, ``silent_since`` by worker. Times are Unix seconds.
    """

    started_at: Mapping[str, float] = field(default_factory=dict)
    surplus: Mapping[str, Surplus] = field(default_factory=dict)
    failures: Mapping[str, Backoff] = field(default_factory=dict)
    silent_since: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """By model, what the last round decided."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """By model, for policies that forecast."""
    needed: Mapping[str, int] = field(default_factory=dict)
    """By model with more replicas than it was ever found to need, how many it needed (``sizing/cold_start.py``)."""
    resized_at: Mapping[str, float] = field(default_factory=dict)
    """By model, when a policy with cooldowns last changed the size."""

    def retried(self, model: str) -> Memory:
        """The memory without the back-off of ``model``."""
        return replace(self, failures={name: one for name, one in self.failures.items() if name != model})

    def excused(self, model: str) -> Memory:
        """The memory without the last failure of ``model``, which was its device's."""
        before = self.failures.get(model)
        after = before.excused if before else None
        return replace(self.retried(model), failures={**self.failures, model: after}) if after else self.retried(model)

    def failed(self, now: float, model: str, lived_s: float, cause: str, served: bool = False) -> Memory:
        """The memory after a further worker of ``model`` ended unasked or could not be started."""
        failure = backoff.after(self.failures.get(model), now, lived_s, cause, served)
        return replace(self, failures={**self.failures, model: failure})
