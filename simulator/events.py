"""EventQueue to come, in the order of the virtual clock."""

from __future__ import annotations

import heapq
import math
from enum import IntEnum


class What(IntEnum):
    """What an event is about; arrivals are not among them, since the trace is in order already."""

    WORKER_DUE = 0
    """Of a worker: something that it holds may end."""
    WORKER_READY = 1
    ROUND = 2
    """Of the autoscaler."""
    FAILURE = 3
    """Of a device, by its place."""
    REPAIR = 4
    REDELIVERY = 5
    """Of the requests of one worker that was lost, the oldest first."""
    HAND_BACK = 6
    """Of a worker that has drained for long enough."""
    PREEMPTION = 7
    """Of a model whose requests have waited for long enough to take others' slots."""
    PAUSE_OVER = 8
    """Of a worker that may take preemptible requests again beside those of other tiers."""


class EventQueue:
    """A heap of (time in seconds, number, what, whom); the number keeps those of one moment in the order of making."""

    __slots__ = ("_number", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, What, object]] = []
        self._number = 0

    def add(self, at: float, what: What, whom: object = None) -> None:
        """One to come; one at infinity never does."""
        if at < math.inf:
            self._number += 1
            heapq.heappush(self.heap, (at, self._number, what, whom))

    @property
    def made(self) -> int:
        """How many were ever added."""
        return self._number
