"""Estimates in a simulated run: what was foretold of requests that had to wait, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.demand import Demand
from scheduler.estimate import Ahead, Errors, Estimate, Situation, estimate

if TYPE_CHECKING:
    from .run import Simulation
    from .worker import Worker


@dataclass(frozen=True, slots=True)
class Told:
    """An estimate: of which request, when it was made, in seconds of the run."""

    request: int
    at: float
    estimate: Estimate


class Foresight:
    """Estimates for every ``every``-th request that has to wait, at the moment when it is queued.

    It knows what a reader of the live fleet knows: lengths of queues, the workers' phases and places, and the rates
    that the autoscaler last measured. Errors are learned from requests as they start, so an estimate stands on earlier
    ones only.
    """

    def __init__(self, every: int = 1) -> None:
        self.told: list[Told] = []
        self._every, self._nth = every, 0
        self._open: dict[int, Told] = {}
        self._errors: dict[int, Errors] = {}

    def queued(self, sim: Simulation, request: int, now: float) -> None:
        """A request was queued."""
        self._nth += 1
        if self._nth % self._every:
            return
        model = sim.trace.model[request]
        errors = self._errors.setdefault(model, Errors())
        found = estimate(situation(sim, request, now), errors.quantiles())
        self._open[request] = Told(request, now, found)
        self.told.append(self._open[request])

    def started(self, sim: Simulation, request: int, now: float) -> None:
        """A request was taken."""
        if told := self._open.pop(request, None):
            errors = self._errors[sim.trace.model[request]]
            errors.learn(told.estimate.why, told.estimate.starts.expected, now - told.at)


def situation(sim: Simulation, request: int, now: float) -> Situation:
    """What the last of its queue finds."""
    model, trace = sim.trace.model[request], sim.trace
    name = trace.models[model]
    demand: Demand | None = sim.rounds.demands.get(name)
    rates = {tier.tier: tier.arrivals_per_s for tier in demand.tiers} if demand else {}
    own: list[Worker] = [
        one for one in sim.fleet.workers.values() if one.model == model and one.draining_since > now
    ]
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
        free=sum(one.room for one in own if one.ready_at <= now),
        jobs_per_s=demand.jobs_per_s if demand else 0.0,
        load_s=load_s + sim.settings.scaling.interval_s,
    )
