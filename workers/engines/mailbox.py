"""An engine's queue of messages: requests, cancellations, withdrawals and, if it has one, its device thread's reports.

All share one queue, because a thread that waits on two has to poll one of them.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Generic, TypeVar

from .protocol import Request

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Cancel the request ``request_id``."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Withdraw every request that has not begun."""


class Mailbox(Generic[Report]):
    """A thread-safe message queue. It is unbounded: the pool submits no more than the engine's capacity."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Request | Cancellation | Withdrawal | Report] = queue.SimpleQueue()

    def put(self, message: Request | Cancellation | Withdrawal | Report) -> None:
        """Enqueue a message. Never blocks."""
        self._queue.put(message)

    def take(self, timeout: float) -> list[Request | Cancellation | Withdrawal | Report]:
        """Dequeue all messages, oldest first; wait up to ``timeout`` seconds for the first."""
        messages = []
        try:
            messages.append(self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait())
            while True:
                messages.append(self._queue.get_nowait())
        except queue.Empty:
            return messages


class MailboxEngine(Generic[Report]):
    """The part of an engine that only passes messages on: see ``protocol.Engine``."""

    def __init__(self) -> None:
        self._mailbox: Mailbox[Report] = Mailbox()
        self._progress = 0

    @property
    def progress(self) -> int:
        """See ``protocol``."""
        return self._progress

    def submit(self, request: Request) -> None:
        """See ``protocol``."""
        self._put(request)

    def cancel(self, request_id: str) -> None:
        """See ``protocol``."""
        self._put(Cancellation(request_id))

    def withdraw(self) -> None:
        """See ``protocol``."""
        self._put(Withdrawal())

    def _put(self, message: Request | Cancellation | Withdrawal) -> None:
        self._mailbox.put(message)
