"""Preemption on the virtual clock: the live rules (``scheduler/order/preemption.py``), and when they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.order import preemption
from scheduler.order.preemption import Room

from ..events import What

if TYPE_CHECKING:
    from ..run import Simulation
    from ..worker import SimulatedWorker


class Yielding:
    """What preemptible tiers leave to the others, and give up for them.

    In the live fleet the worker that looks first after the grace takes all that wait, and preempts as many. Here they
    take turns.
    """

    def __init__(self, sim: Simulation, on: bool) -> None:
        self._sim = sim
        self._tiers = [sim.settings.tiers[name] for name in sim.trace.tiers]
        self.preemptible = [on and tier.preemptible for tier in self._tiers]
        """By tier."""
        self._on = any(self.preemptible)
        self._called = [False] * len(sim.trace.models)
        self._workers: list[dict[SimulatedWorker, None]] = [{} for _ in sim.trace.models]
        """Those that may hold preemptible requests."""
        self._wakes: dict[SimulatedWorker, float] = {}
        """When those that made a pause look again: the last time that was noted of each."""

    def room(self, worker: SimulatedWorker, now: float) -> Room:
        """What a worker may take with nobody giving way."""
        if not self._on:
            return Room.of(worker.room)
        held, preemptible = worker.running, len(worker.preemptible)
        beside_others = held > preemptible
        next_at = worker.prefill.next_at(beside_others)
        if next_at > now and self._wakes.get(worker) != next_at:
            self._wakes[worker] = next_at
            self._sim.events.add(next_at, What.PAUSE_OVER, worker)
        room = preemption.room(
            worker.room + held,
            worker.slots,
            held,
            preemptible - len(worker.kept),
            others_s=0.0 if beside_others else now - worker.others_at,
            pause_s=next_at - now,
        )
        return Room(room.free, room.preemptible)

    def admit(self, worker: SimulatedWorker, requests: Sequence[int], overdue: bool, now: float) -> float:
        """A worker takes these; see :meth:`SimulatedWorker.admit`. Those that were overdue are not to be preempted."""
        if not self._on:
            return worker.admit(requests, now)
        tiers = self._sim.trace.tier
        found = {request for request in requests if self.preemptible[tiers[request]]}
        if len(found) < len(requests):
            worker.others_at = now
        if not found or not worker.slots:
            return worker.admit(requests, now)
        due = worker.admit(requests, now, found)
        if overdue:
            worker.kept |= found
        else:
            self._workers[worker.model][worker] = None
        return due

    def resume(self, whom: object, now: float) -> None:
        """A worker's pause is over."""
        worker: SimulatedWorker = whom  # type: ignore[assignment]  # the payload of this kind of event
        if worker.accepts:
            self._sim.feed(worker, now)

    def queued(self, model: int, tier: int, now: float) -> None:
        """A request has to wait."""
        if self._workers[model] and not self.preemptible[tier] and not self._called[model]:
            self._called[model] = True
            grace_s = preemption.GRACE * self._tiers[tier].target_wait_s
            self._sim.events.add(now + grace_s, What.PREEMPTION, model)

    def preempt(self, whom: object, now: float) -> None:
        """Requests of a model that have waited for long enough take the slots of preemptible ones."""
        model: int = whom  # type: ignore[assignment]  # the payload of this kind of event
        self._called[model] = False
        sim, workers = self._sim, self._workers[model]
        while sim.queues[model].urgent and workers:
            worker = next(iter(workers))
            del workers[worker]
            held = [(request, 1) for request in worker.preemptible if request not in worker.kept]
            if not worker.accepts or not held:
                continue
            workers[worker] = None  # behind the others
            victims = preemption.victims(held, sim.queues[model].urgent)
            sim.expect(worker, worker.preempt(victims, now))
            sim.queues[model].give_back(victims[::-1], now)
            sim.feed(worker, now)
