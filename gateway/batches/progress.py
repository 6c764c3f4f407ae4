"""How fast a batch goes, and how much of it should be in flight. Times are seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from producer.contract.heartbeat import Heartbeat, WorkerState

MEMORY_S = 30.0
"""What was this long ago counts for about a third of what is now."""

LEAST, MOST = 256, 4096
"""Lines in flight: enough to see that a fleet is wanted, and no more than a process keeps in its memory."""


class Pace:
    """Lines per second, smoothed over the time they take."""

    def __init__(self, now: float, done: int) -> None:
        self._at = self._since = now
        self._done = done
        self._mean = 0.0

    def add(self, now: float, done: int) -> float:
        """The pace, by how many are done now; 0 until it is known."""
        if now > self._at:
            keep = math.exp(-(now - self._at) / MEMORY_S)
            self._mean = keep * self._mean + (1 - keep) * (done - self._done) / (now - self._at)
            self._at, self._done = now, done
        known = 1 - math.exp(-(now - self._since) / MEMORY_S)  # the mean began at 0, and has that much to it
        return self._mean / known if known else 0.0


def width(beats: Iterable[Heartbeat], models: Collection[str]) -> int:
    """How many lines to keep in flight: twice what the workers hold, so that as many wait as run.

    Less would let them run dry between two looks; more could as well wait in the file, where whatever is more urgent
    goes before it.
    """
    held = sum(beat.capacity for beat in beats if beat.model in models and beat.state is WorkerState.READY)
    return min(MOST, max(LEAST, 2 * held))
