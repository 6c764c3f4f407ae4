"""One model's queues on the virtual clock: what ``scheduler/lease/claim.lua`` does to the lists in Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.order.fairness import quantum
from scheduler.order.preemption import Room
from scheduler.queue_lengths import ModelQueues, QueueState

if TYPE_CHECKING:
    from producer.contract.fleet_schema import Tier

    from .queue_policy import QueuePolicy


class Queues:
    """First in, first out within a tier; between tiers, the order decides anew at each claim.

    Args:
        tiers: of the model, by name, in the order of the trace's tier indices.
        arrived_at: when each request arrived, by its index.
    """

    __slots__ = (
        "_arrived_at", "_by_arrival", "_names", "_preemptible", "_ranks", "_since", "arrived", "tiers", "urgent",
        "waiting",
    )  # fmt: skip

    def __init__(self, tiers: Sequence[tuple[str, Tier]], order: QueuePolicy, arrived_at: Sequence[float]) -> None:
        self.tiers: list[deque[int]] = [deque() for _ in tiers]
        self.arrived = [0] * len(tiers)
        self.waiting = 0
        self.urgent = 0
        """Of those that wait, those of tiers that are not preemptible."""
        self._names = [name for name, _ in tiers]
        self._preemptible = [tier.preemptible and order.preempts for _, tier in tiers]
        self._ranks = [order.rank(tier) for _, tier in tiers]
        self._since = [0.0] * len(tiers)
        self._arrived_at = arrived_at
        self._by_arrival = order.by_arrival

    def push(self, tier: int, request: int, now: float) -> None:
        """One more at the end of its queue."""
        queue = self.tiers[tier]
        if not queue:
            self._since[tier] = now
        queue.append(request)
        self.waiting += 1
        self.urgent += not self._preemptible[tier]

    def give_back(self, tier: int, request: int, now: float) -> None:
        """One that was claimed before, at the head of its queue."""
        if not self.tiers[tier]:
            self._since[tier] = now
        self.tiers[tier].appendleft(request)
        self.waiting += 1
        self.urgent += not self._preemptible[tier]

    def claim(self, now: float, room: Room) -> tuple[list[int], bool]:
        """Take as many requests as there is room, as :func:`scheduler.order.lanes.claim` does: the most urgent
        queue's, as
        long as it is that once it was served, else its share. Also says whether those of a preemptible tier were
        overdue."""
        claimed: list[int] = []
        overdue = False
        before = tuple(self._since)
        while order := self._urgent_first(now, room, len(claimed)):
            tier, queue = order[0], self.tiers[order[0]]
            take = min(room.of_tier(self._preemptible[tier]) - len(claimed), len(queue))
            if len(order) > 1 and not self._by_arrival:
                second = self._ranks[order[1]].urgency(self._waited(order[1], now))
                if self._ranks[tier].urgency(0.0) < second:
                    take = min(take, quantum(room.most))
            if not self._preemptible[tier]:
                self.urgent -= take
            elif self._ranks[tier].urgency(self._waited(tier, now)) > 0:
                overdue = True
            for _ in range(take):
                claimed.append(queue.popleft())
            self._since[tier] = now
        self.waiting -= len(claimed)
        if not overdue:
            for tier, since in enumerate(before):
                if self._preemptible[tier]:
                    self._since[tier] = since
        return claimed, overdue

    def ended(self, tier: int, now: float) -> None:
        """A request of the tier is done: a preemptible one's queue was served by that."""
        if self._preemptible[tier]:
            self._since[tier] = now

    def _urgent_first(self, now: float, room: Room, taken: int) -> list[int]:
        found = [n for n, queue in enumerate(self.tiers) if queue and taken < room.of_tier(self._preemptible[n])]
        if len(found) > 1:
            found.sort(key=lambda tier: self._ranks[tier].urgency(self._waited(tier, now)), reverse=True)
        return found

    def _waited(self, tier: int, now: float) -> float:
        since = self._arrived_at[self.tiers[tier][0]] if self._by_arrival else self._since[tier]
        return now - since

    def observe(self, model: str, now: float, inflight: int, dead: int) -> ModelQueues:
        """What the live autoscaler reads from Redis."""
        states = []
        for tier, queue in enumerate(self.tiers):
            age = now - self._arrived_at[queue[0]] if queue else 0.0
            waited = now - self._since[tier] if queue else 0.0
            states.append(QueueState(model, self._names[tier], len(queue), age, waited, self.arrived[tier]))
        return ModelQueues(model, tuple(states), inflight, dead)
