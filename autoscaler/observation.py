"""Observation: everything that one round decides on, and what it remembers of the rounds before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .actions import backoff

if TYPE_CHECKING:
    from producer.contract.settings import Settings

    from .actions.backoff import Backoff
    from .devices.device import Device
    from .roster import Worker
    from .sizing.demand import Demand
    from .sizing.history import History
    from .sizing.size import Size


@dataclass(frozen=True, slots=True)
class Observation:
    """The fleet at ``now`` (Unix seconds). ``demands`` holds every model of the settings whose demand could be told."""

    now: float
    settings: Settings
    demands: Mapping[str, Demand]
    devices: Sequence[Device]
    workers: Sequence[Worker]


@dataclass(frozen=True, slots=True)
class Surplus:
    """Since when a model has had more replicas than it needs, and the most that it needed since."""

    since: float
    needed: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What one round leaves to the next. An empty one is safe: it makes the autoscaler wait, never hurry.

    ``started_at``, ``surplus`` and ``failures`` are by model, ``silent_since`` by worker. Times are Unix
    seconds.
    """

    started_at: Mapping[str, float] = field(default_factory=dict)
    surplus: Mapping[str, Surplus] = field(default_factory=dict)
    failures: Mapping[str, Backoff] = field(default_factory=dict)
    silent_since: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """What the last round wanted of each model."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """By model, for a policy that looks ahead."""
    resized_at: Mapping[str, float] = field(default_factory=dict)
    """By model, when a policy with cooldowns last changed its size."""

    def failed(self, now: float, model: str, lived_s: float, cause: str, served: bool = False) -> Memory:
        """With one more worker of ``model`` that ended unasked, or never served."""
        failure = backoff.after(self.failures.get(model), now, lived_s, cause, served)
        return replace(self, failures={**self.failures, model: failure})
