"""Calibration of estimates: the autoscaler estimates for the last job of each queue and measures the error.

When that job started is told by counters: a queue counts as first in, first out, so the n-th job that ever arrived has
started once n jobs were taken. When it ended is told by its own result, for jobs end in another order than they start:
were the n-th end taken for the end of the n-th job, run times that differ would average out, and the interval would be
too narrow. In the simulator (``benchmarks.simulator --only 6``), of the ends of one and the same run 87% lay in it, and
94% in the interval learned from the jobs' own ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.estimates.snapshot import Place, measures_of, replicas_of, snapshot
from producer.estimates.wait_time import Errors, Estimate, Snapshot, estimate

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings
    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import PublishedDemand, PublishedSize


MOST_OPEN = 1000
"""Upper limit of the open estimates of a model; at the limit none is added."""
PATIENCE = 2
"""For how many times the model's time limit a job's end is waited for after its start: jobs are tried again, and the
result of one whose producer wants none never comes."""


@dataclass(slots=True)
class OpenEstimate:
    """What was estimated at Unix time ``at`` for the ``number``-th job that ever arrived in its tier, then the last of
    its queue. ``job_id`` is that job, as long as its end is waited for; empty when it is not known."""

    tier: str
    number: int
    at: float
    estimate: Estimate
    job_id: str = ""
    started_at: float | None = None


@dataclass(slots=True)
class EstimateCalibration:
    """The errors of one model's estimates, and the estimates whose error is not known yet. No clock, no I/O."""

    errors: Errors = field(default_factory=Errors)
    _open: list[OpenEstimate] = field(default_factory=list)

    @property
    def followed(self) -> set[str]:
        """Ids of the jobs whose end is not known yet."""
        return {one.job_id for one in self._open if one.job_id}

    def learn(self, now: float, demand: PublishedDemand, ended: Mapping[str, bool], time_limit_s: float) -> bool:
        """Learn from the estimates whose jobs started or ended. True when there were any.

        Args:
            ended: jobs that have ended, and whether a worker ran them to their end; only those count.
            time_limit_s: how long a job of the model may run.
        """
        arrived = {tier.tier: tier.arrived for tier in demand.tiers}
        taken = {tier.tier: tier.arrived - tier.queued for tier in demand.tiers}
        learned = False
        for one in self._open:
            if one.started_at is None and taken.get(one.tier, 0) >= one.number:
                one.started_at, learned = now, True
                self.errors.started(one.estimate, now - one.at)
            if one.job_id in ended:
                if ended[one.job_id]:
                    learned = True
                    self.errors.ended(one.estimate, now - one.at)
                one.job_id = ""
        # The counters of a queue that was deleted begin anew, and would not reach the number in time.
        self._open = [
            one
            for one in self._open
            if arrived.get(one.tier, 0) >= one.number
            and (one.started_at is None or (one.job_id and now <= one.started_at + PATIENCE * time_limit_s))
        ]
        return learned

    def make(
        self, now: float, settings: Settings, wanted: PublishedSize, beats: Sequence[Heartbeat]
    ) -> Sequence[OpenEstimate]:
        """Estimate for the last job of each queue. Returns the estimates to learn from, whose job ids are to be set.

        Args:
            wanted: what is published of the model in this round, and so what readers make their estimates from.
            beats: of workers of any model.
        """
        made: list[OpenEstimate] = []
        for tier in wanted.demand.tiers:
            if tier.queued and len(self._open) + len(made) < MOST_OPEN:
                of = last_in_queue(now, settings, wanted, beats, tier.tier)
                found = estimate(of, self.errors.quantiles())
                if self.errors.wants(found, now):
                    made.append(OpenEstimate(tier.tier, tier.arrived, now, found))
        self._open += made
        return made


def last_in_queue(
    now: float, settings: Settings, wanted: PublishedSize, beats: Sequence[Heartbeat], tier: str
) -> Snapshot:
    """The snapshot for the last job of a tier's queue."""
    demand = wanted.demand
    queued = {one.tier: one.queued for one in demand.tiers}
    place = Place(tier, max(0, queued[tier] - 1), [*queued.values()])
    measures = measures_of(demand, wanted.hold)
    return snapshot(now, settings, demand.model, place, replicas_of(demand.model, beats), measures)
