"""The outcome: what became of every request, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..traces.trace import Trace


class Fate(IntEnum):
    """How a request ended; every one ends in exactly one of these."""

    OPEN = 0
    """Not yet: at the end of a run only those that no worker will ever take."""
    DONE = 1
    DEAD = 2
    """It was lost with too many workers."""
    REFUSED = 3
    """Its queue was full."""


@dataclass(frozen=True, slots=True)
class FleetSample:
    """The fleet at one moment of the run."""

    at: float
    queued: tuple[int, ...]
    """By tier, over all models."""
    loading: int
    serving: int
    draining: int
    held: tuple[int, ...]
    """Devices that a worker is on, by type, in the order of the hardware."""
    faulty: int
    """Devices, of all types."""


@dataclass(slots=True)
class RunOutcome:
    """Times in seconds from the beginning of the trace; ``started`` and ``ended`` are NaN where they never came.

    ``started`` is when a worker took the request for the first time: what the tier's target is about.
    """

    trace: Trace
    started: list[float]
    ended: list[float]
    fate: bytearray
    ends_at: float = 0.0
    device_s: dict[str, float] = field(default_factory=dict)
    """Seconds that devices were held, by type, loading and draining included."""
    starts: int = 0
    failures: int = 0
    events: int = 0
    samples: Sequence[FleetSample] = ()

    @property
    def device_hours(self) -> float:
        """Over all types."""
        return sum(self.device_s.values()) / 3600
