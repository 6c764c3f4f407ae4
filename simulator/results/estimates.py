"""Estimates in a simulated run: what was foretold of requests that had to wait, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.sizing.demand import Demand
from producer.contract.reserved_slots import left_to_others
from producer.estimates.wait_time import Ahead, Errors, Estimate, Situation, estimate

if TYPE_CHECKING:
    from ..run import Simulation
    from ..worker import SimulatedWorker


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
        told = RecordedEstimate(request, now, estimate(situation(sim, request, now), errors.quantiles()))
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


def situation(sim: Simulation, request: int, now: float) -> Situation:
    """What the last of its queue finds."""
    model, trace = sim.trace.model[request], sim.trace
    name = trace.models[model]
    demand: Demand | None = sim.rounds.demands.get(name)
    rates = {tier.tier: tier.arrivals_per_s for tier in demand.tiers} if demand else {}
    own: list[SimulatedWorker] = [
        one for one in sim.fleet.workers.values() if one.model == model and one.draining_since > now
    ]
    serving = [one for one in own if one.ready_at <= now]
    rate = demand.jobs_per_s if demand else 0.0
    load_s = (demand.load_s if demand else 0.0) or sim.fleet.load_s(name)
    queues = sim.queues[model]
    tier = trace.tier[request]
    return Situation(
        tier=trace.tiers[tier],
        tiers=[
            Ahead(
                of,
                sim.settings.tiers[of].target_wait_s,
                len(queues.tiers[n]) - (n == tier),
                rates.get(of, 0.0),
            )
            for n, of in enumerate(trace.tiers)
        ],
        ready_in_s=[0.0 if one.ready_at <= now else max(0.1, one.started_at + load_s - now) for one in own],
        places=sim.settings.models[name].max_concurrency,
        free=sum(one.room for one in serving),
        left=sum(left_to_others(sim.settings, trace.tiers[tier], one.slots, rates) for one in serving),
        jobs_per_s=rate,
        load_s=load_s + sim.settings.scaling.interval_s,
        run_s=demand.run_s if demand else 0.0,
    )
