"""Estimates in a simulated run: what was estimated for each queued request, to be compared with what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.published_view import demand_view
from producer.estimates.snapshot import ModelMeasures, Place, Replica, measures_of, snapshot
from producer.estimates.wait_time import Errors, Estimate, Snapshot, estimate

from ..queueing.routing import PULL

if TYPE_CHECKING:
    from ..state import RunState


@dataclass(frozen=True, slots=True)
class RecordedEstimate:
    """An estimate of a request, made ``at`` seconds of the run."""

    request: int
    at: float
    estimate: Estimate


class SimulatedEstimates:
    """Estimates of a run: one for each request at the moment when it is queued, to be compared with what happened.

    They are made from what a reader of the live fleet knows: lengths of queues, the workers' phases and places, and the
    rates that the autoscaler last measured. Errors are learned when requests start and end, so an estimate uses only
    earlier ones.

    Args:
        state: of the run, to whose events they subscribe.
        errors: by model, what was learned in an earlier run. In the live fleet it outlives all processes.

    Raises:
        ValueError: requests are pushed; an estimate is of a request that waits in its model's queue.
    """

    def __init__(self, state: RunState, errors: dict[str, Errors] | None = None) -> None:
        if state.routing is not PULL:
            name = state.routing.name
            raise ValueError(f"estimates are of requests that wait in their model's queue: route by pull, not {name}")
        self.made: list[RecordedEstimate] = []
        self.errors = {} if errors is None else errors
        self._state = state
        self._learning: dict[int, RecordedEstimate] = {}
        state.request_events.queued.append(self._queued)
        state.request_events.started.append(self._started)
        state.request_events.done.append(self._done)

    def _queued(self, request: int, now: float) -> None:
        errors = self.errors.setdefault(self._model(request), Errors())
        made = RecordedEstimate(request, now, estimate(last_in_queue(self._state, request, now), errors.quantiles()))
        self.made.append(made)
        if errors.wants(made.estimate, now):
            self._learning[request] = made

    def _started(self, request: int, now: float) -> None:
        if made := self._learning.get(request):
            self.errors[self._model(request)].started(made.estimate, now - made.at)

    def _done(self, request: int, now: float) -> None:
        if made := self._learning.pop(request, None):
            self.errors[self._model(request)].ended(made.estimate, now - made.at)

    def _model(self, request: int) -> str:
        return self._state.trace.models[self._state.trace.model[request]]


def last_in_queue(state: RunState, request: int, now: float) -> Snapshot:
    """The snapshot for a request that is the last of its queue."""
    model, trace = state.trace.model[request], state.trace
    name, tier = trace.models[model], trace.tiers[trace.tier[request]]
    demand = state.demands.get(name)
    lengths = dict(zip(trace.tiers, map(len, state.queues[model].tiers), strict=True))
    place = Place(tier, lengths[tier] - 1, [lengths.get(each, 0) for each in state.settings.model(name).tiers])
    replicas = [
        Replica(one.ready_at <= now, one.started_at, one.running, one.capacity, one.jobs_per_s)
        for one in state.fleet.workers.values()
        if one.model == model and one.draining_since > now
    ]
    blocker = state.blockers.get(name, "")
    measures = measures_of(demand_view(demand), blocker) if demand else ModelMeasures()
    return snapshot(now, state.settings, name, place, replicas, measures)
