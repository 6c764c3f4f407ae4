"""The autoscaler's rounds on the virtual clock: the live reconciler, fed from and acting on the simulated fleet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from autoscaler.actions.decision import Decision, Drain, Hold, Start
from autoscaler.observation import Observation
from autoscaler.roster import Phase
from autoscaler.roster import Worker as Seen

from .events import EventKind
from .queueing.push import together
from .results.outcome import FleetSample

if TYPE_CHECKING:
    from autoscaler.reconciler import Reconciler
    from autoscaler.sizing.demand import Demand

    from .dispatch import Dispatch
    from .state import RunState


class Rounds:
    """Runs the reconciler on the virtual clock, as ``autoscaler/controller.py`` does in the live fleet."""

    def __init__(self, state: RunState, dispatch: Dispatch, reconciler: Reconciler) -> None:
        self.reconciler = reconciler
        self._state, self._dispatch = state, dispatch
        self.measured: dict[str, dict[str, float]] = {name: {} for name in state.trace.models}
        """By model: what its workers were measured to do. In the live fleet it outlives them, in Redis."""
        self.decisions: list[tuple[float, Decision]] = []

    def round(self, now: float) -> None:
        """Observe, decide, act."""
        decisions = self.reconciler.decide(self._observe(now))
        self._state.blockers = {one.model: one.reason for one in decisions if isinstance(one, Hold)}
        for decision in decisions:
            self._act(now, decision)

    def sample(self, now: float) -> FleetSample:
        """The fleet and its queues now."""
        state = self._state
        models, tiers = range(len(state.trace.models)), range(len(state.trace.tiers))
        queued = tuple(sum(state.queued(model, tier) for model in models) for tier in tiers)
        phases = Counter(one.phase(now) for one in state.fleet.workers.values())
        on = Counter(state.fleet.types[one.device].type for one in state.fleet.workers.values())
        held = tuple(on[kind] for kind in state.fleet.held_s)
        faulty = sum(bool(device.fault) for device in state.fleet.devices)
        return FleetSample(
            now, queued, phases[Phase.LOADING], phases[Phase.READY], phases[Phase.DRAINING], held, faulty
        )

    def _observe(self, now: float) -> Observation:
        state = self._state
        models, devices = state.trace.models, state.fleet.devices
        seen: list[Seen] = []
        own: dict[str, list[Seen]] = {name: [] for name in models}
        for simulated in state.fleet.workers.values():
            name = models[simulated.model]
            worker = simulated.seen(name, devices[simulated.device].id, now)
            seen.append(worker)
            own[name].append(worker)
            if worker.jobs_per_s and simulated.measured:
                self.measured[name]["jobs_per_s"] = worker.jobs_per_s
                self.measured[name]["run_s"] = worker.batch_size / worker.jobs_per_s
            if worker.load_s:
                self.measured[name]["load_s"] = worker.load_s
        demands: dict[str, Demand] = {}
        for model, name in enumerate(models):
            running = sum(one.running for one in own[name])
            queues = together([one.observe(name, now, running, state.dead[model]) for one in state.queues_of(model)])
            demands[name] = self.reconciler.demand(now, state.settings, queues, own[name], self.measured[name])
        state.demands = demands
        usable = self.reconciler.devices(now, state.settings, devices, seen)
        return Observation(now, state.settings, demands, usable, seen)

    def _act(self, now: float, decision: Decision) -> None:
        state = self._state
        if isinstance(decision, Start):
            worker, ready_at = state.fleet.start(decision.model, decision.device, now)
            state.events.add(ready_at, EventKind.WORKER_READY, worker)
            self.decisions.append((now, decision))
        elif isinstance(decision, Drain):
            self._drain(now, decision)
            self.decisions.append((now, decision))

    def _drain(self, now: float, decision: Drain) -> None:
        state = self._state
        worker = state.fleet.workers[decision.worker]
        worker.drain(now)
        self._dispatch.withdraw(worker, now)
        if decision.grace_s == 0:
            self._dispatch.drop(worker, now)
        elif not worker.running:
            state.fleet.end(worker, now)
        else:
            state.events.add(now + decision.grace_s, EventKind.HAND_BACK, worker)
