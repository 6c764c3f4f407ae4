"""The progress of a batch: its rate, and how many lines should be in flight. Times are seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable

from producer.contract.heartbeat import Heartbeat, WorkerState

MEMORY_S = 30.0
"""Time constant of the smoothed rate, in seconds."""

LEAST, MOST = 256, 4096
"""Bounds of the lines of one model in flight: enough for the autoscaler to see the demand, few enough for a process's
memory."""


class Pace:
    """Lines per second, exponentially smoothed over time."""

    def __init__(self, now: float, done: int) -> None:
        self._at = self._since = now
        self._done = done
        self._mean = 0.0

    def add(self, now: float, done: int) -> float:
        """The rate after ``done`` lines in all; 0 until it is known."""
        if now > self._at:
            keep = math.exp(-(now - self._at) / MEMORY_S)
            self._mean = keep * self._mean + (1 - keep) * (done - self._done) / (now - self._at)
            self._at, self._done = now, done
        known = 1 - math.exp(-(now - self._since) / MEMORY_S)  # corrects the bias of a mean that starts at 0
        return self._mean / known if known else 0.0


def width(beats: Iterable[Heartbeat], model: str) -> int:
    """The number of a model's lines to keep in flight: twice what the workers hold, so that as many are queued as run.

    Fewer would let workers run dry between two polls; more can stay in the file, where they delay no other job.
    """
    held = sum(beat.capacity for beat in beats if beat.model == model and beat.state is WorkerState.READY)
    return min(MOST, max(LEAST, 2 * held))
