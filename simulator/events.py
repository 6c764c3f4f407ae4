"""Events on the virtual clock, in the order of their times; and the subscriptions to what happens to requests."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class EventKind(IntEnum):
    """What happens at an event, and to what. Arrivals are not events: the trace holds them in order already."""

    WORKER_DUE = 0
    """A request that a worker holds may end. Subject: the worker."""
    WORKER_READY = 1
    """A worker has loaded its model. Subject: the worker."""
    ROUND = 2
    """The autoscaler's next round. No subject."""
    FAILURE = 3
    """A device fails. Subject: its index."""
    REPAIR = 4
    """A failed device is replaced. Subject: its index."""
    REDELIVERY = 5
    """The leases of a lost worker's requests run out. Subject: the requests, the oldest first."""
    HAND_BACK = 6
    """A draining worker's grace period ends. Subject: the worker."""
    PREEMPTION = 7
    """Requests of a model have waited for the grace period, and take slots of preemptible ones. Subject: the model."""
    PAUSE_OVER = 8
    """A worker may admit a preemptible request again beside other requests. Subject: the worker."""


class EventQueue:
    """A heap of (time in seconds, number, kind, subject). The number keeps simultaneous events in the order in which
    they were added."""

    __slots__ = ("_number", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, EventKind, Any]] = []
        self._number = 0

    def add(self, at: float, kind: EventKind, subject: object = None) -> None:
        """Add an event; one at infinity is dropped, since it never comes."""
        if at < math.inf:
            self._number += 1
            heapq.heappush(self.heap, (at, self._number, kind, subject))

    @property
    def added(self) -> int:
        """The number of events that were ever added."""
        return self._number


RequestListener = Callable[[int, float], None]
"""Called with a request and the time in seconds."""


@dataclass(frozen=True, slots=True)
class RequestEvents:
    """Subscriptions to what happens to requests: append a listener to a list, and it is called at every such event."""

    queued: list[RequestListener] = field(default_factory=list)
    """A request was added to its model's queue, because no worker could take it at once."""
    started: list[RequestListener] = field(default_factory=list)
    """A worker took a request for the first time."""
    done: list[RequestListener] = field(default_factory=list)
    """A request was served to its end."""
