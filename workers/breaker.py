"""The breaker of a replica: one whose engine fails most requests gets a trickle of jobs, until it serves again or is
replaced.

A replica that fails at once is always free, and would fail the jobs of all others. So it is closed (in service) until
failures stand out, then open: one job at a time, after a pause that doubles with each failure, is its test. Successes
in a row close it; failures in a row ask for another replica. Requests that are wrong themselves, cancelled or late tell
nothing of an engine. A pure state machine: time is a value, in seconds by any clock that does not go back.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

LATEST = 20
"""Requests that the error rate is taken of."""
LEAST = 5
"""Least failures among these that open it, whatever the rate: a job that always fails is tried 4 times."""
SHARE = 0.5
"""Least share of failures that opens it."""
FIRST_S = 1.0
LONGEST_S = 30.0
"""The pause between two tests, which doubles."""
SOUND = 3
"""Successes in a row that close it."""
TOLD = 200
"""Most characters of an error that are told."""
HOPELESS = 6
"""Failures in a row, each after its pause, that ask for another replica."""


class BreakerState(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    """The replica gets no job before the pause is over."""
    HALF_OPEN = "half-open"
    """The next job is its test."""


class Breaker:
    """The breaker of one replica."""

    def __init__(self) -> None:
        self._latest: deque[bool] = deque(maxlen=LATEST)  # whether each failed
        self._open = False
        self._next_at = 0.0
        self._row = 0  # while it is open: tests in a row that failed, or minus those that succeeded
        self.why = ""
        """The failures that opened it, in words; empty while it is closed."""

    def ended(self, now: float, succeeded: int, failed: int, last: str = "") -> None:
        """Requests have ended.

        Args:
            last: the error of the last that failed.
        """
        if not succeeded and not failed:
            return
        if self._open:
            self._tested(now, succeeded, failed)
            return
        self._latest.extend([False] * succeeded + [True] * failed)
        failures = sum(self._latest)
        if failures >= LEAST and failures >= SHARE * len(self._latest):
            self._open, self._row, self._next_at = True, 0, now + FIRST_S
            self.why = f"{failures} of its last {len(self._latest)} requests failed, the last with: {last[:TOLD]}"

    def _tested(self, now: float, succeeded: int, failed: int) -> None:
        if now < self._next_at:
            return  # no test: they were in the engine before
        if failed:
            self._row = max(self._row, 0) + 1
            self._next_at = now + min(LONGEST_S, FIRST_S * 2.0**self._row)
            return
        self._row = min(self._row, 0) - succeeded
        self._next_at = now
        if self._row <= -SOUND:
            self._open, self.why = False, ""
            self._latest.clear()

    def state(self, now: float) -> BreakerState:
        """Its state."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self._next_at else BreakerState.OPEN

    @property
    def hopeless(self) -> bool:
        """Whether another replica should take its place."""
        return self._open and self._row >= HOPELESS

    def capacity(self, now: float, held: int, of_engine: int) -> int:
        """Most jobs that the replica may hold, while it holds ``held``; 0 to take no more."""
        match self.state(now):
            case BreakerState.CLOSED:
                return of_engine
            case BreakerState.HALF_OPEN if not held:
                return min(1, of_engine)
            case _:
                return 0

    def wait_s(self, now: float) -> float:
        """Seconds until the next test; 0 when it is not waited for."""
        return max(0.0, self._next_at - now) if self._open else 0.0
