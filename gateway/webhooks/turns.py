"""Whose webhook is delivered next. No I/O.

Tenants take turns. Each has a few places, and fewer for one host; a host whose last deliveries have all failed has one,
and a tenant two, until one succeeds: those who do not answer, or answer late, hold up nobody but themselves.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

AT_ONCE = 64
"""Most deliveries at a time."""
OF_TENANT = 8
"""Most deliveries of one tenant at a time."""
TO_HOST = 4
"""Most deliveries of one tenant to one host at a time."""
FAILING = 3
"""Failures in a row after which a tenant, or its host, has fewer places."""
OF_FAILING_TENANT, TO_FAILING_HOST = 2, 1
"""How many those have: a tenant another one than its failing host."""
WAITING = 256
"""Most deliveries of one tenant that wait for a place here."""
REMEMBERED = 10_000
"""Tenants and hosts of which it is remembered that they fail."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """A delivery, by whom and where to."""

    tenant: str
    host: str
    what: T
    until: float
    """When the right to deliver it ends, in seconds of the monotonic clock."""


class Turns(Generic[T]):
    """The deliveries that wait, and the places that others have taken."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Turn[T]]] = {}  # by tenant, the one whose turn it is first
        self._running: Counter[tuple[str, str]] = Counter()  # by tenant, and by tenant and host
        self._failures: dict[tuple[str, str], int] = {}  # in a row; likewise
        self.running = 0

    def add(self, turn: Turn[T]) -> bool:
        """Have a delivery wait; False when too many of its tenant do."""
        waiting = self._waiting.setdefault(turn.tenant, deque())
        if len(waiting) >= WAITING:
            return False
        waiting.append(turn)
        return True

    def next(self, now: float) -> Turn[T] | None:
        """The next delivery, which takes its places; None when nobody's may begin."""
        if self.running >= AT_ONCE:
            return None
        for tenant in list(self._waiting):
            turn = self._of(tenant, now)
            waiting = self._waiting.pop(tenant)
            if waiting:
                self._waiting[tenant] = waiting  # it is last now
            if turn is not None:
                self.running += 1
                self._running.update(_places(turn))
                return turn
        return None

    def _of(self, tenant: str, now: float) -> Turn[T] | None:
        """The tenant's first delivery that has a place."""
        waiting = self._waiting[tenant]
        while waiting and waiting[0].until <= now:
            waiting.popleft()
        if not self._has_room((tenant, ""), OF_TENANT, OF_FAILING_TENANT):
            return None
        full: set[str] = set()
        for at, turn in enumerate(waiting):
            if turn.host not in full:
                if turn.until > now and self._has_room((tenant, turn.host), TO_HOST, TO_FAILING_HOST):
                    del waiting[at]
                    return turn
                full.add(turn.host)
        return None

    def _has_room(self, place: tuple[str, str], most: int, failing: int) -> bool:
        return self._running[place] < (failing if self._failures.get(place, 0) >= FAILING else most)

    def ended(self, turn: Turn[T], succeeded: bool | None) -> None:
        """A delivery has ended; None if it was not yet to be made."""
        self.running -= 1
        for place in _places(turn):
            self._running[place] -= 1
            if not self._running[place]:
                del self._running[place]
            if succeeded:
                self._failures.pop(place, None)
            elif succeeded is False:
                self._failures[place] = self._failures.pop(place, 0) + 1
                if len(self._failures) > REMEMBERED:
                    del self._failures[next(iter(self._failures))]


def _places(turn: Turn[T]) -> tuple[tuple[str, str], tuple[str, str]]:
    return (turn.tenant, ""), (turn.tenant, turn.host)
