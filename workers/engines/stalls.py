"""For how long a prompt that is read keeps the sequences that run waiting for their tokens.

Generation stalls, as Sarathi-Serve has them (Agrawal et al., OSDI 2024): a step that reads prompts as well takes longer
than one that does not, and every sequence gets its next token that much later.
"""

from __future__ import annotations

from collections.abc import Iterable

from .protocol import Prefilled

_LEARN = 0.1
"""How much one more step counts in what a step takes usually."""


class Stalls:
    """A clock that runs while steps take longer than usual, and what it has shown since each prompt joined.

    Prompts that are read together have each stalled the others for all of that time. Times are in seconds.
    """

    def __init__(self) -> None:
        self._unread: dict[str, str] = {}  # sequence -> request
        self._joined: dict[str, float] = {}  # request -> what the clock showed when its first unread prompt joined
        self._stalled_s = 0.0
        self._usual_s = 0.0
        self._stepped_at = 0.0

    def join(self, sequence_id: str, request_id: str, now: float, *, alone: bool) -> None:
        """A sequence joins the batch, in which nothing else runs when it is ``alone``."""
        if alone:
            self._stepped_at = now
        self._unread[sequence_id] = request_id
        self._joined.setdefault(request_id, self._stalled_s)

    def step(self, sequence_ids: Iterable[str], now: float) -> list[Prefilled]:
        """A step has ended, with tokens for these. Returns the requests of which no prompt is left to be read."""
        took_s, self._stepped_at = now - self._stepped_at, now
        if not self._unread:
            self._usual_s += (_LEARN if self._usual_s else 1.0) * (took_s - self._usual_s)
            return []
        self._stalled_s += max(0.0, took_s - self._usual_s)
        return [told for each in sequence_ids if (told := self.leave(each)) is not None]

    def leave(self, sequence_id: str) -> Prefilled | None:
        """The prompt of a sequence is read, or never will be. What there is to tell, if it was its request's last."""
        request_id = self._unread.pop(sequence_id, None)
        if request_id is None or request_id in self._unread.values():
            return None
        return Prefilled(request_id, self._stalled_s - self._joined.pop(request_id))
