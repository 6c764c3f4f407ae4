"""Estimates in a simulated run: what was foretold of requests that had to wait, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.estimate_calibration import measures
from producer.estimates.snapshot import ModelMeasures, Place, Replica, snapshot
from producer.estimates.wait_time import Errors, Estimate, Snapshot, estimate

if TYPE_CHECKING:
    from ..run import Simulation


@dataclass(frozen=True, slots=True)
class RecordedEstimate:
    """An estimate: of which request, when it was made, in seconds of the run."""

    request: int
    at: float
    estimate: Estimate


class SimulatedEstimates:
    """Estimates for the requests that have to wait, at the moment when they are queued.

    It knows what a reader of the live fleet knows: lengths of queues, the workers' phases and places, and the rates
    that the autoscaler last measured. Errors are learned when requests start and end, so an estimate stands on earlier
    ones only.

    Args:
        errors: by model, what was learned in an earlier run; as in the live fleet, where it outlives everybody.
    """

    def __init__(self, errors: dict[str, Errors] | None = None) -> None:
        self.told: list[RecordedEstimate] = []
        self.errors = {} if errors is None else errors
        self._learning: dict[int, RecordedEstimate] = {}

    def queued(self, sim: Simulation, request: int, now: float) -> None:
        """A request was queued."""
        errors = self.errors.setdefault(_model(sim, request), Errors())
        told = RecordedEstimate(request, now, estimate(last_in_queue(sim, request, now), errors.quantiles()))
        self.told.append(told)
        if errors.wants(told.estimate, now):
            self._learning[request] = told

    def started(self, sim: Simulation, request: int, now: float) -> None:
        """A request was taken."""
        if told := self._learning.get(request):
            self.errors[_model(sim, request)].started(told.estimate, now - told.at)

    def ended(self, sim: Simulation, request: int, now: float) -> None:
        """A request was done."""
        if told := self._learning.pop(request, None):
            self.errors[_model(sim, request)].ended(told.estimate, now - told.at)


def _model(sim: Simulation, request: int) -> str:
    return sim.trace.models[sim.trace.model[request]]


def last_in_queue(sim: Simulation, request: int, now: float) -> Snapshot:
    """The snapshot for a request that is the last of its queue."""
    model, trace = sim.trace.model[request], sim.trace
    name, tier = trace.models[model], trace.tiers[trace.tier[request]]
    demand = sim.rounds.demands.get(name)
    lengths = dict(zip(trace.tiers, map(len, sim.queues[model].tiers), strict=True))
    place = Place(tier, lengths[tier] - 1, [lengths.get(each, 0) for each in sim.settings.model(name).tiers])
    replicas = [
        Replica(one.ready_at <= now, one.started_at, one.running, one.capacity, one.jobs_per_s)
        for one in sim.fleet.workers.values()
        if one.model == model and one.draining_since > now
    ]
    known = measures(demand, sim.rounds.blockers.get(name, "")) if demand else ModelMeasures()
    return snapshot(now, sim.settings, name, place, replicas, known)
