"""One model's queues on the virtual clock, in the order of the live fleet (``scheduler/order/lanes.py``) or another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from producer.contract.fleet.tenants import DEFAULT
from producer.contract.fleet.tenants import tenant as table_of
from scheduler.order.fairness import price
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.queue_lengths import ModelQueues, QueueState

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

    from ..traces.trace import Trace
    from .queue_policy import QueuePolicy


class Queues:
    """The most urgent queue goes first; of it, if the order is fair, the tenant that was served least.

    A request is charged what it costs, where the live fleet charges what such a request usually costs and sets it right
    when it has ended. Quotas are not simulated.
    """

    __slots__ = ("_by_arrival", "_fair", "_preemptible", "_trace", "arrived", "tiers", "urgent", "waiting")

    def __init__(self, settings: Settings, trace: Trace, order: QueuePolicy) -> None:
        weights = {name: table_of(settings.tenants, name).weight for name in trace.tenants}
        tiers = [settings.tiers[name] for name in trace.tiers]
        self.tiers: list[Lanes[int]] = [
            Lanes(order.rank(tier), weights, tier.preemptible and order.preempts) for tier in tiers
        ]
        self._preemptible = [lanes for lanes in self.tiers if lanes.preemptible]
        self.arrived = [0] * len(tiers)
        self.waiting = 0
        self.urgent = 0
        """Of those that wait, those of tiers that are not preemptible."""
        self._trace = trace
        self._by_arrival = order.by_arrival
        self._fair = order.fair and len(trace.tenants) > 1

    def push(self, request: int, now: float) -> None:
        """Enqueue a request that has just come."""
        lanes = self.tiers[self._trace.tier[request]]
        lanes.push(self._waiting(request, lanes), now)
        self.waiting += 1
        self.urgent += not lanes.preemptible

    def give_back(self, requests: Sequence[int], now: float) -> None:
        """Enqueue requests that were claimed before, the oldest first, each before all others of its tier."""
        for tier in {self._trace.tier[request] for request in requests}:
            lanes = self.tiers[tier]
            jobs = [self._waiting(request, lanes) for request in requests if self._trace.tier[request] == tier]
            lanes.give_back(jobs, now)
            self.waiting += len(jobs)
            self.urgent += 0 if lanes.preemptible else len(jobs)

    def claim(self, now: float, room: Room) -> tuple[list[int], bool]:
        """Take as many requests as there is room, as :func:`scheduler.order.lanes.claim` does. Also says whether those
        of a preemptible tier were overdue."""
        if not self.urgent and room.preemptible <= 0:  # only preemptible requests wait, and there is no room for them
            return [], False
        taken = claim(self.tiers, now, room)
        self.waiting -= len(taken.jobs)
        self.urgent = self.waiting - sum(map(len, self._preemptible))
        return [one.job for one in taken.jobs], taken.overdue

    def ended(self, request: int, now: float) -> None:
        """A request that was claimed here is done."""
        self.tiers[self._trace.tier[request]].ended(now)

    def observe(self, model: str, now: float, inflight: int, dead: int) -> ModelQueues:
        """What the live autoscaler reads from Redis; ages are those of passed-over heads."""
        states = []
        for name, lanes, arrived in zip(self._trace.tiers, self.tiers, self.arrived, strict=True):
            waited = now - lanes.since if len(lanes) else 0.0
            states.append(QueueState(model, name, len(lanes), waited, waited, arrived))
        return ModelQueues(model, tuple(states), inflight, dead)

    def _waiting(self, request: int, lanes: Lanes[int]) -> QueuedJob[int]:
        trace = self._trace
        due = trace.at[request] - lanes.rank.head_start
        if not self._fair:
            return QueuedJob(request, DEFAULT, due, own=self._by_arrival)
        cost = price(trace.input_tokens[request], trace.output_tokens[request])
        return QueuedJob(request, trace.tenants[trace.tenant[request]], due, cost)
