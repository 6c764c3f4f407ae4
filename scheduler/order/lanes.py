"""The order of one model's queued jobs: what ``claim.lua`` does, without Redis.

Three decisions follow each other: the queue (``priority``), the tenant in it (``fairness``), and the tenant's job: the
one with the earliest due time.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from producer.contract.fleet.tenants import DEFAULT

from .fairness import Counters, quantum
from .preemption import GRACE, Room
from .priority import Rank

J = TypeVar("J")
"""The caller's representation of a job."""

_TURN = count()


@dataclass(slots=True)  # a frozen one takes three times as long to make, and a simulation makes millions
class QueuedJob(Generic[J]):
    """A queued job. ``due`` is in seconds: its arrival plus its tier's target, or its own deadline if earlier."""

    job: J
    tenant: str
    due: float
    cost: float = 1.0
    """Its charge in tokens; see :func:`scheduler.order.fairness.expected`."""
    own: bool = False
    """Whether it is due at a deadline of its own."""


@dataclass(slots=True)
class _Lane(Generic[J]):
    """One tenant's jobs. Jobs without a deadline of their own are in order of arrival; one that is given back is
    first."""

    listed: deque[QueuedJob[J]] = field(default_factory=deque)
    dated: list[tuple[float, int, QueuedJob[J]]] = field(default_factory=list)
    """A heap, by deadline."""


@dataclass(slots=True)
class Lanes(Generic[J]):
    """One queue: a lane for each tenant, in which the job with the earliest due time goes first.

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
    filled: float = 0.0
    """When it last ceased to be empty, in seconds."""
    _before: float = math.inf
    """Of a preemptible tier, when the queue began to be passed over from which the last jobs were taken, none of which
    has ended: if one of them comes back, the queue has been passed over since then."""
    _charged: dict[str, float] = field(default_factory=dict)
    """Tenants that the claim of the moment has charged, and their counters before it."""
    _lanes: dict[str, _Lane[J]] = field(default_factory=dict)
    _waiting: int = 0
    _dated: int = 0
    """Jobs with a deadline of their own."""

    def __len__(self) -> int:
        return self._waiting

    def push(self, waiting: QueuedJob[J], now: float) -> None:
        """Enqueue a job."""
        lane = self._enter(waiting.tenant, now)
        if waiting.own:
            self._push_dated(lane, waiting)
        else:
            lane.listed.append(waiting)

    def give_back(self, jobs: Sequence[QueuedJob[J]], now: float) -> None:
        """Return claimed jobs, in their order, to the head of their lanes without a charge, as ``release.lua`` does."""
        for waiting in reversed(jobs):
            lane = self._enter(waiting.tenant, now)
            if waiting.own:
                self._push_dated(lane, waiting)
            else:
                lane.listed.appendleft(waiting)
        for waiting in jobs:
            self.counters.charge(waiting.tenant, -waiting.cost / self.weights.get(waiting.tenant, 1.0))
        if jobs:
            self.since, self._before = min(self.since, self._before), math.inf

    def withdraw(self, job: J) -> None:
        """Remove a job that was cancelled while queued, as ``withdraw.lua`` does."""
        for tenant, lane in self._lanes.items():
            for waiting in (*lane.listed, *(each for _, _, each in lane.dated)):
                if waiting.job == job:
                    self._remove(tenant, lane, waiting)
                    return

    def _remove(self, tenant: str, lane: _Lane[J], waiting: QueuedJob[J]) -> None:
        if waiting.own:
            lane.dated = [each for each in lane.dated if each[2] is not waiting]
            heapq.heapify(lane.dated)
            self._dated -= 1
        else:
            lane.listed.remove(waiting)
        self._waiting -= 1
        if not lane.listed and not lane.dated:
            self.counters.leave(tenant)
            del self._lanes[tenant]

    def ended(self, now: float) -> None:
        """A job of the queue has ended. A preemptible tier's queue counts as served by that, not by the claim."""
        if self.preemptible:
            self.since, self._before = now, math.inf

    def urgency(self, now: float, waited_s: float) -> float:
        """How urgent the next job is, if the queue was passed over for ``waited_s``. Only the next tenant's deadlines
        count: they are its own, not its queue's."""
        if self._dated:
            lane = self._lanes[tenant := self.counters.next(self._charged)]
            if lane.dated and lane.dated[0][0] <= self._front(tenant, lane):
                return self.rank.urgency(waited_s, lane.dated[0][0] - now)
        return self.rank.urgency(waited_s)

    def take(self, most: int, share: int) -> list[QueuedJob[J]]:
        """Take up to ``most`` jobs of the next tenant; up to ``share`` while other tenants are active."""
        active = self.counters.active
        tenant = self.counters.next(self._charged)
        lane = self._lanes[tenant]
        if len(active) > 1:
            self._charged.setdefault(tenant, active[tenant])
            most = min(most, share)
        if lane.dated:
            taken = [self._pop(tenant, lane) for _ in range(min(most, len(lane.listed) + len(lane.dated)))]
        else:
            taken = [lane.listed.popleft() for _ in range(min(most, len(lane.listed)))]
        self._waiting -= len(taken)
        active[tenant] += sum([each.cost for each in taken]) / self.weights.get(tenant, 1.0)
        if not lane.listed and not lane.dated:
            self.counters.leave(tenant)
        return taken

    def served(self, now: float, overdue: bool) -> None:
        """A claim that took jobs of the queue, which were ``overdue`` or not, is over."""
        self._charged.clear()
        if overdue or not self.preemptible:
            self.since, self._before = now, math.inf
        elif not self._waiting:
            self._before = min(self._before, self.since)
        # Otherwise the taken jobs may come back: the queue still counts as passed over.

    def _enter(self, tenant: str, now: float) -> _Lane[J]:
        if not self._waiting:
            self.since = self.filled = now
        self._waiting += 1
        if tenant not in self.counters.active:
            self.counters.enter(tenant)
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
        return lane

    def _push_dated(self, lane: _Lane[J], waiting: QueuedJob[J]) -> None:
        heapq.heappush(lane.dated, (waiting.due, next(_TURN), waiting))
        self._dated += 1

    def _pop(self, tenant: str, lane: _Lane[J]) -> QueuedJob[J]:
        if lane.dated and lane.dated[0][0] <= self._front(tenant, lane):
            self._dated -= 1
            return heapq.heappop(lane.dated)[2]
        return lane.listed.popleft()

    def _front(self, tenant: str, lane: _Lane[J]) -> float:
        """The due time of the first job without a deadline of its own. The arrival of the default tenant's jobs is not
        recorded: the first of them is due when the queue is."""
        if not lane.listed:
            return math.inf
        return self.since - self.rank.head_start if tenant == DEFAULT else lane.listed[0].due


@dataclass(slots=True)
class Taken(Generic[J]):
    """The jobs of a claim, and whether those of a preemptible tier were overdue: these are not to be preempted."""

    jobs: list[QueuedJob[J]]
    overdue: bool


def claim(queues: Sequence[Lanes[J]], now: float, room: Room) -> Taken[J]:
    """Take as many jobs as there is room for, from the most urgent queue as long as it is that; of equals, the
    first."""
    filled = [queue for queue in queues if queue._waiting]
    most = [_most(queue, now, room) for queue in filled]
    claimed: list[QueuedJob[J]] = []
    limit = max(most, default=0)
    if limit <= 0:
        return Taken(claimed, overdue=False)
    waited = [now - queue.since for queue in filled]
    share = quantum(room.most)
    served: dict[int, bool] = {}
    """Of each queue that was served, whether it was overdue."""
    while len(claimed) < limit:
        waiting = [n for n, queue in enumerate(filled) if queue._waiting and len(claimed) < most[n]]
        if not waiting:
            break
        urgency = [filled[n].urgency(now, waited[n]) for n in waiting]
        highest = max(urgency)
        first = waiting[urgency.index(highest)]
        queue, take = filled[first], most[first] - len(claimed)
        if len(waiting) > 1 and queue.rank.urgency(0.0) < sorted(urgency)[-2]:
            take = min(take, share)  # once it was served, another goes first
        served[first] = served.get(first, False) or highest > 0
        claimed += queue.take(take, share)
        waited[first] = 0.0
    for n, overdue in served.items():
        filled[n].served(now, overdue)
    return Taken(claimed, any(overdue and filled[n].preemptible for n, overdue in served.items()))


def _most(queue: Lanes[J], now: float, room: Room) -> int:
    """Up to how many jobs in all a claim takes jobs of the queue; beyond free slots only after the grace."""
    if queue.preemptible:
        return room.preemptible
    if room.preempting and now - queue.filled >= -GRACE * queue.rank.head_start:
        return room.free + room.preempting
    return room.free
