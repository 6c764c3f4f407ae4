"""For how long a prompt that is read keeps the sequences that run waiting for their tokens.

Generation stalls, as Sarathi-Serve has them (Agrawal et al., OSDI 2024): a step that reads prompts as well takes longer
than one that does not, and every sequence gets its next token that much later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..protocol import Prefilled

_LEARN = 0.1
"""How much one more step counts in what a step takes usually."""


@dataclass(slots=True)
class _Request:
    """One that has prompts to be read."""

    joined: float
    """What the clock showed when the first of them joined."""
    stall_s: float = 0.0
    """For how long those of its prompts that are read have kept others waiting."""


class Stalls:
    """A clock that runs while steps take longer than usual, and what it has shown for the prompts of each request.

    Prompts are read in the order in which they join, so that one has stalled the others since the one before it was
    read; those that are read in one step, each for all of that step. Times are in seconds.
    """

    def __init__(self) -> None:
        self._unread: dict[str, str] = {}  # sequence -> request
        self._requests: dict[str, _Request] = {}
        self._stalled_s = 0.0
        self._read_at = 0.0  # what the clock showed when the last prompt was read
        self._usual_s = 0.0
        self._stepped_at = 0.0

    def join(self, sequence_id: str, request_id: str, now: float, *, alone: bool) -> None:
        """A sequence joins the batch, in which nothing else runs when it is ``alone``."""
        if alone:
            self._stepped_at = now
        self._unread[sequence_id] = request_id
        self._requests.setdefault(request_id, _Request(self._stalled_s))

    def step(self, sequence_ids: Iterable[str], now: float) -> list[Prefilled]:
        """A step has ended, with tokens for these. Returns the requests of which no prompt is left to be read."""
        took_s, self._stepped_at = now - self._stepped_at, now
        if not self._unread:
            self._usual_s += (_LEARN if self._usual_s else 1.0) * (took_s - self._usual_s)
            return []
        self._stalled_s += max(0.0, took_s - self._usual_s)
        read = dict.fromkeys(self._unread.pop(each) for each in sequence_ids if each in self._unread)
        told = []
        for request_id in read:
            request = self._requests[request_id]
            request.stall_s += self._stalled_s - max(request.joined, self._read_at)
            if request_id not in self._unread.values():
                told.append(Prefilled(request_id, self._requests.pop(request_id).stall_s))
        if read:
            self._read_at = self._stalled_s
        return told

    def leave(self, sequence_id: str) -> None:
        """A sequence has left; its prompt, if it was not read yet, will not be."""
        request_id = self._unread.pop(sequence_id, None)
        if request_id is not None and request_id not in self._unread.values():
            del self._requests[request_id]
