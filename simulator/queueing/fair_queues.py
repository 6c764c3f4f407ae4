"""One model's queues on the virtual clock when several tenants share them: the live fleet's fair order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from producer.contract.tenants import tenant as table_of
from scheduler.order.fairness import price
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.order.priority import rank
from scheduler.queue_lengths import ModelQueues, QueueState

if TYPE_CHECKING:
    from producer.contract.settings import Settings

    from ..traces.trace import Trace


class FairQueues:
    """As :class:`~simulator.queueing.queues.Queues`, in the order of ``scheduler/order/lanes.py``: the most urgent
    queue, of it the
    tenant that was served least, of its requests the one that is due first.

    A request is charged what it costs, where the live fleet charges what such a request usually costs and sets it right
    when it has ended. Quotas are not simulated.
    """

    def __init__(self, settings: Settings, trace: Trace) -> None:
        weights = {name: table_of(settings.tenants, name).weight for name in trace.tenants}
        tiers = [settings.tiers[name] for name in trace.tiers]
        self.tiers: list[Lanes[int]] = [Lanes(rank(tier), weights, tier.preemptible) for tier in tiers]
        self.arrived = [0] * len(trace.tiers)
        self._targets = [settings.tiers[name].target_wait_s for name in trace.tiers]
        self._trace = trace

    @property
    def waiting(self) -> int:
        """Requests, over all tiers."""
        return sum(map(len, self.tiers))

    @property
    def urgent(self) -> int:
        """Of those that wait, those of tiers that are not preemptible."""
        return sum(len(lanes) for lanes in self.tiers if not lanes.preemptible)

    def push(self, tier: int, request: int, now: float) -> None:
        """One more."""
        trace = self._trace
        cost = price(trace.input_tokens[request], trace.output_tokens[request])
        due = trace.at[request] + self._targets[tier]
        self.tiers[tier].push(QueuedJob(request, trace.tenants[trace.tenant[request]], due, cost), now)

    def give_back(self, tier: int, request: int, now: float) -> None:
        """One that was claimed before: it is due before those that came after it, and was not served."""
        self.push(tier, request, now)
        trace, lanes = self._trace, self.tiers[tier]
        tenant = trace.tenants[trace.tenant[request]]
        cost = price(trace.input_tokens[request], trace.output_tokens[request])
        lanes.counters.charge(tenant, -cost / lanes.weights.get(tenant, 1.0))

    def claim(self, now: float, room: Room) -> tuple[list[int], bool]:
        """See :meth:`~simulator.queueing.queues.Queues.claim`."""
        taken = claim(self.tiers, now, room)
        return [one.job for one in taken.jobs], taken.overdue

    def ended(self, tier: int, now: float) -> None:
        """See :meth:`~simulator.queueing.queues.Queues.ended`."""
        if self.tiers[tier].preemptible:
            self.tiers[tier].since = now

    def observe(self, model: str, now: float, inflight: int, dead: int) -> ModelQueues:
        """What the live autoscaler reads from Redis; ages are those of passed-over heads."""
        states = []
        for name, lanes, arrived in zip(self._trace.tiers, self.tiers, self.arrived, strict=True):
            waited = now - lanes.since if len(lanes) else 0.0
            states.append(QueueState(model, name, len(lanes), waited, waited, arrived))
        return ModelQueues(model, tuple(states), inflight, dead)
