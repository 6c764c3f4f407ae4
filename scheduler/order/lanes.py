"""The jobs of one model that wait, in the order in which they are taken: what ``claim.lua`` does, without Redis.

Three decisions follow on each other: which queue (``priority``), which of its tenants (``fairness``), which of the
tenant's jobs: the one that is due first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from .fairness import Counters, quantum
from .preemption import Room
from .priority import Rank

J = TypeVar("J")
"""What a job is to whoever queues it."""

_TURN = count()


@dataclass(frozen=True, slots=True)
class QueuedJob(Generic[J]):
    """A job that waits. ``due`` is in seconds: when it came plus its tier's target, or its own deadline if earlier."""

    job: J
    tenant: str
    due: float
    cost: float = 1.0
    """Tokens that it will be charged; see :func:`scheduler.order.fairness.expected`."""
    own: bool = False
    """Whether it is due at a deadline of its own."""


@dataclass(slots=True)
class Lanes(Generic[J]):
    """One queue: a lane for each tenant, in which the earliest deadline goes first.

    Args:
        rank: of its tier.
        weights: of tenants, where it is not 1.
        preemptible: whether its tier is (``preemption``).
    """

    rank: Rank
    weights: dict[str, float] = field(default_factory=dict)
    preemptible: bool = False
    counters: Counters = field(default_factory=Counters)
    since: float = 0.0
    """When its head began to be passed over, in seconds."""
    _lanes: dict[str, list[tuple[float, int, QueuedJob[J]]]] = field(default_factory=dict)
    _waiting: int = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, waiting: QueuedJob[J], now: float) -> None:
        """One more."""
        if not self._waiting:
            self.since = now
        self.counters.enter(waiting.tenant)
        heapq.heappush(self._lanes.setdefault(waiting.tenant, []), (waiting.due, next(_TURN), waiting))
        self._waiting += 1

    def urgency(self, now: float) -> float:
        """How urgent the next job is. Only the next tenant's deadlines count: they are its own, not its queue's."""
        due, _, head = self._lanes[self.counters.next()][0]
        return self.rank.urgency(now - self.since, due - now if head.own else math.inf)

    def take(self, most: int, share: int) -> list[QueuedJob[J]]:
        """Up to ``most`` jobs of the tenant that is next; ``share`` of them while others wait."""
        tenant = self.counters.next()
        lane = self._lanes[tenant]
        most = min(most, len(lane), share if len(self.counters.active) > 1 else most)
        taken = [heapq.heappop(lane)[2] for _ in range(most)]
        self._waiting -= most
        self.counters.charge(tenant, sum(each.cost for each in taken) / self.weights.get(tenant, 1.0))
        if not lane:
            self.counters.leave(tenant)
            del self._lanes[tenant]
        return taken


@dataclass(frozen=True, slots=True)
class Taken(Generic[J]):
    """What a claim brought, and whether jobs of a preemptible tier were overdue: these are not to be preempted."""

    jobs: list[QueuedJob[J]]
    overdue: bool


def claim(queues: Sequence[Lanes[J]], now: float, room: Room) -> Taken[J]:
    """Take as many jobs as there is room: the most urgent queue's, as long as it is that. Of equals, the first."""
    claimed: list[QueuedJob[J]] = []
    share, overdue = quantum(room.most), set()
    before = [queue.since for queue in queues]

    def left(queue: Lanes[J]) -> int:
        return min(len(queue), room.of_tier(queue.preemptible) - len(claimed))

    while waiting := [queue for queue in queues if left(queue) > 0]:
        first = max(waiting, key=lambda queue: queue.urgency(now))
        others = [queue.urgency(now) for queue in waiting if queue is not first]
        alone = not others or first.rank.urgency(0.0) >= max(others)  # it goes on being the first, once it was served
        if first.preemptible and first.urgency(now) > 0:
            overdue.add(id(first))
        claimed += first.take(left(first) if alone else min(share, left(first)), share)
        first.since = now
    for queue, since in zip(queues, before, strict=True):
        if queue.preemptible and id(queue) not in overdue:
            queue.since = since  # what was taken of it may come back, and it goes on being passed over
    return Taken(claimed, bool(overdue))
