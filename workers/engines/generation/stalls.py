"""Measurement of generation stalls: the delay of running sequences by the prefill of others.

A step with prefill takes longer than a decode step, which delays the next token of every running sequence (Agrawal et
al., Sarathi-Serve, OSDI 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..protocol import Prefilled

_LEARN = 0.1
"""Weight of the newest decode step in the moving average of their durations."""


@dataclass(slots=True)
class _Request:
    """A request with prompts in prefill."""

    joined: float
    """The total stall when the first prompt joined, in seconds."""
    stall_s: float = 0.0
    """The stall that the completed prefills of the request caused, in seconds."""


class Stalls:
    """Attributes the stall of each step, its duration beyond the average decode step, to the prompts in prefill.

    Prefills run in the order in which sequences join: each is charged with the stall since the end of the one before.
    Prefills that end in the same step are each charged with all of it. Times are in seconds.
    """

    def __init__(self) -> None:
        self._unread: dict[str, str] = {}  # request id by sequence id, of sequences in prefill
        self._requests: dict[str, _Request] = {}
        self._stalled_s = 0.0
        self._read_at = 0.0  # the total stall at the end of the last prefill
        self._usual_s = 0.0
        self._stepped_at = 0.0

    def join(self, sequence_id: str, request_id: str, now: float, *, alone: bool) -> None:
        """Count a sequence that joins the batch; ``alone``: no other sequence runs."""
        if alone:
            self._stepped_at = now
        self._unread[sequence_id] = request_id
        self._requests.setdefault(request_id, _Request(self._stalled_s))

    def step(self, sequence_ids: Iterable[str], now: float) -> list[Prefilled]:
        """Count a step that ended at ``now`` with tokens for ``sequence_ids``. Returns the requests without prompts
        left in prefill."""
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
        """Count a sequence that leaves the batch, perhaps before the end of its prefill."""
        request_id = self._unread.pop(sequence_id, None)
        if request_id is not None and request_id not in self._unread.values():
            del self._requests[request_id]
