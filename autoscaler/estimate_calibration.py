"""How far estimates are off: the autoscaler tells itself what the last job of each queue will wait, and looks what it
waited. Queues are first in, first out for this purpose, so a count of jobs that were taken tells when it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.estimates.snapshot import ModelMeasures, Place, replicas_of, snapshot
from producer.estimates.wait_time import Errors, Estimate, Snapshot, estimate

if TYPE_CHECKING:
    from producer.contract.heartbeat import Heartbeat
    from producer.contract.settings import Settings

    from .published_view import Wanted
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

    def look(self, now: float, settings: Settings, wanted: Wanted, beats: Sequence[Heartbeat]) -> bool:
        """Another look at the queues. Whether anything was learned.

        Args:
            wanted: what is published of the model in this round, and so what readers make their estimates from.
            beats: of workers of any model.
        """
        taken = {tier.tier: tier.arrived - tier.queued for tier in wanted.demand.tiers}
        true = [told for told in self._open if taken.get(told.tier, 0) >= told.number]
        for told in true:
            self.errors.started(told.estimate, now - told.at)
        self._open = [told for told in self._open if told not in true]
        for tier in wanted.demand.tiers:
            if tier.queued:
                of = last_in_queue(now, settings, wanted, beats, tier.tier)
                found = estimate(of, self.errors.quantiles())
                if self.errors.wants(found, now):
                    self._open.append(OpenEstimate(tier.tier, tier.arrived, now, found))
        return bool(true)


def last_in_queue(now: float, settings: Settings, wanted: Wanted, beats: Sequence[Heartbeat], tier: str) -> Snapshot:
    """The snapshot for the last job of a tier's queue."""
    demand = wanted.demand
    queued = {one.tier: one.queued for one in demand.tiers}
    place = Place(tier, max(0, queued[tier] - 1), [*queued.values()])
    return snapshot(now, settings, demand.model, place, replicas_of(demand.model, beats), measures(demand, wanted.hold))


def measures(demand: Demand, hold: str) -> ModelMeasures:
    """What the autoscaler knows of a model, as the builder of snapshots takes it."""
    arrivals_per_s = {tier.tier: tier.arrivals_per_s for tier in demand.tiers}
    return ModelMeasures(arrivals_per_s, demand.jobs_per_s, demand.load_s, demand.run_s, hold)
