"""Preemption on the virtual clock: the live rules (``scheduler/preemption.py``), and when they are applied."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from scheduler import preemption
from scheduler.preemption import Room

from .events import What

if TYPE_CHECKING:
    from .run import Simulation
    from .worker import Worker


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
        self._workers: list[dict[Worker, None]] = [{} for _ in sim.trace.models]
        """Those that may hold preemptible requests."""

    def room(self, worker: Worker, now: float) -> Room:
        """What a worker may take with nobody giving way."""
        if not self._on:
            return Room.of(worker.room)
        held, preemptible = worker.running, len(worker.preemptible)
        room = preemption.room(worker.room + held, worker.slots, held, preemptible, now - worker.others_at)
        return Room(room.free, room.preemptible)

    def admitted(self, worker: Worker, requests: Sequence[int], overdue: bool, now: float) -> Container[int]:
        """A worker took these: those of them that may be preempted."""
        if not self._on:
            return ()
        tiers = self._sim.trace.tier
        found = {request for request in requests if self.preemptible[tiers[request]]}
        if len(found) < len(requests):
            worker.others_at = now
        if not found or overdue or not worker.slots:
            return ()
        self._workers[worker.model][worker] = None
        return found

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
            if not worker.accepts or not worker.preemptible:
                continue
            workers[worker] = None  # behind the others
            held = [(request, 1) for request in worker.preemptible]
            victims = preemption.victims(held, sim.queues[model].urgent)
            sim.expect(worker, worker.preempt(victims, now))
            for request in reversed(victims):
                sim.queues[model].give_back(sim.trace.tier[request], request, now)
            sim.feed(worker, now)
