"""How far estimates are off: the autoscaler tells itself what the last job of each queue will wait, and looks what it
waited. Queues are first in, first out for this purpose, so a count of jobs that were taken tells when it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.estimates.wait_time import Ahead, Errors, Estimate, Situation, estimate

from .roster import Phase

if TYPE_CHECKING:
    from producer.contract.settings import Settings
    from scheduler.queue_lengths import ModelQueues

    from .roster import Worker
    from .sizing.demand import Demand


@dataclass(frozen=True, slots=True)
class OpenEstimate:
    """What was foretold at Unix time ``at`` for the job that was the ``number``-th ever of its tier."""

    tier: str
    number: int
    at: float
    estimate: Estimate


@dataclass(slots=True)
class EstimateCalibration:
    """One model's estimates, of which some are remembered until they come true. No clock, no I/O."""

    errors: Errors = field(default_factory=Errors)
    _open: list[OpenEstimate] = field(default_factory=list)

    def look(
        self, now: float, settings: Settings, queues: ModelQueues, demand: Demand, workers: Sequence[Worker]
    ) -> bool:
        """Another look at the queues. Whether anything was learned."""
        taken = {tier.tier: tier.arrived - tier.length for tier in queues.tiers}
        true = [told for told in self._open if taken.get(told.tier, 0) >= told.number]
        for told in true:
            self.errors.started(told.estimate, now - told.at)
        self._open = [told for told in self._open if told not in true]
        for tier in queues.tiers:
            if tier.length:
                found = estimate(situation(now, settings, demand, workers, tier.tier), self.errors.quantiles())
                if self.errors.wants(found, now):
                    self._open.append(OpenEstimate(tier.tier, tier.arrived, now, found))
        return bool(true)


def situation(now: float, settings: Settings, demand: Demand, workers: Sequence[Worker], tier: str) -> Situation:
    """What the last job of a tier's queue finds."""
    own = [worker for worker in workers if worker.model == demand.model and worker.serves]
    serving = [worker for worker in own if worker.phase is Phase.READY]
    rate = demand.jobs_per_s
    running = sum(worker.running for worker in serving) / max(1, len(serving))
    return Situation(
        tier=tier,
        tiers=[
            Ahead(one.tier, one.target_wait_s, max(0, one.queued - (one.tier == tier)), one.arrivals_per_s)
            for one in demand.tiers
        ],
        ready_in_s=[
            0.0 if worker.phase is Phase.READY else max(0.1, worker.started_at + demand.load_s - now) for worker in own
        ],
        places=settings.models[demand.model].max_concurrency,
        free=demand.free_slots,
        left=demand.left * len(serving) if settings.tiers[tier].preemptible else 0,
        jobs_per_s=rate,
        load_s=demand.load_s + settings.scaling.interval_s if demand.load_s else 0.0,
        run_s=demand.run_s or (max(1.0, running) / rate if rate else 0.0),
    )
