"""The autoscaler's rounds on the virtual clock: the live reconciler, fed from and acting on the simulated fleet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from autoscaler.actions.decision import Decision, Drain, Hold, Start
from autoscaler.observation import Observation
from autoscaler.roster import Phase
from autoscaler.roster import Worker as Seen

from .events import What
from .queueing.push import together
from .results.outcome import FleetSample

if TYPE_CHECKING:
    from autoscaler.reconciler import Reconciler
    from autoscaler.sizing.demand import Demand

    from .run import Simulation
    from .worker import SimulatedWorker

FAILED = "its device was lost"


class Rounds:
    """What ``autoscaler/controller.py`` is to the live fleet."""

    def __init__(self, simulation: Simulation, reconciler: Reconciler) -> None:
        self.reconciler = reconciler
        self._sim = simulation
        self.measured: dict[str, dict[str, float]] = {name: {} for name in simulation.trace.models}
        """What workers were measured to do, of each model; in the live fleet it outlives them, in Redis."""
        self.decisions: list[tuple[float, Decision]] = []
        self.demands: dict[str, Demand] = {}
        """As the last round saw them."""
        self.blockers: dict[str, str] = {}
        """By model, why the last round started no further replica that was wanted."""

    def round(self, now: float) -> None:
        """Observe, decide, act."""
        decisions = self.reconciler.decide(self._observe(now))
        self.blockers = {one.model: one.reason for one in decisions if isinstance(one, Hold)}
        for decision in decisions:
            self._act(now, decision)

    def ended_unasked(self, worker: SimulatedWorker, now: float) -> None:
        """A worker was lost."""
        model, served = self._sim.trace.models[worker.model], worker.ready_at <= now
        self.reconciler.failed(now, model, now - worker.started_at, FAILED, served)

    def sample(self, now: float) -> FleetSample:
        """What there is to see now."""
        sim = self._sim
        models, tiers = range(len(sim.trace.models)), range(len(sim.trace.tiers))
        queued = tuple(sum(sim.queued(model, tier) for model in models) for tier in tiers)
        phases = Counter(
            Phase.DRAINING if one.draining_since <= now else Phase.READY if one.ready_at <= now else Phase.LOADING
            for one in sim.fleet.workers.values()
        )
        on = Counter(sim.fleet.types[one.device].type for one in sim.fleet.workers.values())
        held = tuple(on[kind] for kind in sim.fleet.held_s)
        faulty = sum(bool(device.fault) for device in sim.fleet.devices)
        return FleetSample(
            now, queued, phases[Phase.LOADING], phases[Phase.READY], phases[Phase.DRAINING], held, faulty
        )

    def _observe(self, now: float) -> Observation:
        sim = self._sim
        models, devices = sim.trace.models, sim.fleet.devices
        seen = [one.seen(models[one.model], devices[one.device].id, now) for one in sim.fleet.workers.values()]
        own: dict[str, list[Seen]] = {name: [] for name in models}
        for worker in seen:
            own[worker.model].append(worker)
            if worker.jobs_per_s and sim.fleet.workers[worker.name].measured:
                self.measured[worker.model]["jobs_per_s"] = worker.jobs_per_s
                self.measured[worker.model]["run_s"] = worker.batch_size / worker.jobs_per_s
            if worker.load_s:
                self.measured[worker.model]["load_s"] = worker.load_s
        demands = self.demands = {}
        for model, name in enumerate(models):
            running = sum(one.running for one in own[name])
            queues = together([one.observe(name, now, running, sim.dead[model]) for one in sim.parts(model)])
            demands[name] = self.reconciler.demand(now, sim.settings, queues, own[name], self.measured[name])
        return Observation(now, sim.settings, demands, self.reconciler.devices(now, sim.settings, devices, seen), seen)

    def _act(self, now: float, decision: Decision) -> None:
        sim = self._sim
        if isinstance(decision, Start):
            worker, ready_at = sim.fleet.start(decision.model, decision.device, now)
            sim.events.add(ready_at, What.WORKER_READY, worker)
            self.decisions.append((now, decision))
        elif isinstance(decision, Drain):
            self._drain(now, decision)
            self.decisions.append((now, decision))

    def _drain(self, now: float, decision: Drain) -> None:
        sim = self._sim
        worker = sim.fleet.workers[decision.worker]
        worker.drain(now)
        sim.withdraw(worker, now)
        if decision.grace_s == 0:
            sim.drop(worker, now)
        elif not worker.running:
            sim.fleet.end(worker, now)
        else:
            sim.events.add(now + decision.grace_s, What.HAND_BACK, worker)
