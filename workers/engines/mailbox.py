"""The one place an engine waits at: new requests, cancellations, and whatever its device thread reports.

Waiting at two queues would mean polling one of them.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Generic, TypeVar

from .protocol import Request

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Give up the request of that id."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Give up every request that has not begun."""


class Mailbox(Generic[Report]):
    """Thread-safe, unbounded: the pool bounds what it submits by the engine's capacity."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Request | Cancellation | Withdrawal | Report] = queue.SimpleQueue()

    def put(self, message: Request | Cancellation | Withdrawal | Report) -> None:
        """Leave a message. Never blocks."""
        self._queue.put(message)

    def take(self, timeout: float) -> list[Request | Cancellation | Withdrawal | Report]:
        """Everything that is there, in order; waits up to ``timeout`` seconds for the first message."""
        messages = []
        try:
            messages.append(self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait())
            while True:
                messages.append(self._queue.get_nowait())
        except queue.Empty:
            return messages
