"""The breaker of a replica: one whose engine fails most requests gets a trickle of jobs, until it serves again or is
replaced.

A replica that fails at once is always free, and would fail the jobs of all others. So it is closed (in service) until
failures stand out, then open: one job at a time, after a pause that doubles with each failure, is its test. Successes
in a row close it; failures in a row ask for another replica. Requests that are wrong themselves, cancelled or late tell
nothing of an engine.

Each tenant counts once, however many requests it sends: while the requests of other tenants succeed on the replica, the
failures of one are its own, and neither open the breaker nor keep it open.

A pure state machine: time is a value, in seconds by any clock that does not go back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

LATEST = 20
"""Requests of each tenant that its error rate is taken of."""
LEAST = 5
"""Least failures among these that open it, whatever the rate: a job that always fails is tried 4 times."""
SHARE = 0.5
"""Least share of failures by which a tenant's requests count as failing. It opens when those of most tenants do."""
COMPARED_S = 60.0
"""Seconds after its last request in which a tenant is compared with others."""
TENANTS = 64
"""Tenants that are remembered, the latest."""
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


@dataclass(slots=True)
class _Tenant:
    """The latest requests of one tenant: whether each failed, and when the last ended."""

    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=LATEST))
    at: float = -math.inf

    @property
    def failing(self) -> bool:
        """Whether its requests fail, as far as is known."""
        return any(self.failed) and sum(self.failed) >= SHARE * len(self.failed)


class Breaker:
    """The breaker of one replica."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}  # in the order of their last requests
        self._open = False
        self._blamed: frozenset[str] = frozenset()  # the tenants whose failures opened it
        self._next_at = 0.0
        self._row = 0  # while it is open: tests in a row that failed, or minus those that succeeded
        self.why = ""
        """The failures that opened it, in words; empty while it is closed."""

    def ended(self, now: float, outcomes: Sequence[tuple[str, bool]], last: str = "") -> None:
        """Requests have ended.

        Args:
            outcomes: the tenant of each, and whether it failed.
            last: the error of the last that failed.
        """
        if not outcomes:
            return
        if self._open:
            self._tested(now, outcomes)
            return
        self._note(now, outcomes)
        compared = {name: one for name, one in self._tenants.items() if now - one.at <= COMPARED_S}
        failing = frozenset(name for name, one in compared.items() if one.failing)
        latest = [failed for one in compared.values() for failed in one.failed]
        if sum(latest) >= LEAST and 2 * len(failing) > len(compared):
            self._open, self._blamed, self._row, self._next_at = True, failing, 0, now + FIRST_S
            self.why = f"{sum(latest)} of its last {len(latest)} requests failed, the last with: {last[:TOLD]}"

    def _note(self, now: float, outcomes: Sequence[tuple[str, bool]]) -> None:
        for name, failed in outcomes:
            tenant = self._tenants.pop(name, None) or _Tenant()
            tenant.failed.append(failed)
            tenant.at = now
            self._tenants[name] = tenant
        while len(self._tenants) > TENANTS:
            del self._tenants[next(iter(self._tenants))]

    def _tested(self, now: float, outcomes: Sequence[tuple[str, bool]]) -> None:
        succeeded = [name for name, failed in outcomes if not failed]
        if not self._blamed.issuperset(succeeded):
            self._close(now, outcomes)  # it serves a tenant that had no part in the failures: these are the others' own
        elif now < self._next_at:
            return  # no test: they were in the engine before
        elif len(succeeded) < len(outcomes):
            self._row = max(self._row, 0) + 1
            self._next_at = now + min(LONGEST_S, FIRST_S * 2.0**self._row)
        else:
            self._row = min(self._row, 0) - len(succeeded)
            self._next_at = now
            if self._row <= -SOUND:
                self._close(now, ())

    def _close(self, now: float, outcomes: Sequence[tuple[str, bool]]) -> None:
        """Serve again, and remember of the tenants only these outcomes."""
        self._open, self._blamed, self.why = False, frozenset(), ""
        self._tenants.clear()
        self._note(now, outcomes)

    def state(self, now: float) -> BreakerState:
        """The state of the breaker."""
        if not self._open:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self._next_at else BreakerState.OPEN

    @property
    def hopeless(self) -> bool:
        """Whether the worker should end, so that another replica takes its place."""
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
