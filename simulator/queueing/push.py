"""What waits for each worker when requests are pushed: queues of its own, in the same order as the model's would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scheduler.order.preemption import Room
from scheduler.queue_lengths import ModelQueues, QueueState

from ..results.outcome import Fate

if TYPE_CHECKING:
    from ..run import Simulation
    from ..traces.trace import Trace
    from ..worker import SimulatedWorker
    from .queues import Queues
    from .routing import Choose


class PushRouter:
    """Who serves, of each model, and to whom a request goes.

    A worker gets nothing before it is ready, and nothing once it drains or is lost: what waited for it is then routed
    anew, at once, as by a balancer that sees its connections break. While none is ready, requests wait in the model's
    queues, and all of them go to those that are ready first.
    """

    def __init__(self, sim: Simulation, chooser: Callable[[Trace], Choose], queues: Callable[[], Queues]) -> None:
        self.ready: list[list[SimulatedWorker]] = [[] for _ in sim.trace.models]
        self._sim = sim
        self._choose = [chooser(sim.trace) for _ in sim.trace.models]
        self._queues = queues

    def send(self, request: int, now: float) -> bool:
        """One that has just come; False while nobody serves its model."""
        sim, worker = self._sim, self.worker_for(request)
        if worker is None:
            return False
        model, tier = worker.model, sim.trace.tier[request]
        if (
            not worker.room
            and sim.queued(model, tier) >= sim.settings.models[sim.trace.models[model]].limits.max_queued
        ):
            sim.end(request, Fate.REFUSED, now)
        else:
            worker.queues.push(request, now)
            sim.feed(worker, now)
        return True

    def route(self, requests: Sequence[int], now: float) -> None:
        """Those of one model that have waited before, each to the head of where it waits from now on."""
        sim = self._sim
        for request in reversed(requests):
            worker = self.worker_for(request)
            queues = sim.queues[sim.trace.model[request]] if worker is None else worker.queues
            queues.give_back([request], now)
        for worker in self.ready[sim.trace.model[requests[0]]] if requests else ():
            sim.feed(worker, now)

    def worker_for(self, request: int) -> SimulatedWorker | None:
        """To whom it goes; None while nobody serves its model."""
        model = self._sim.trace.model[request]
        ready = self.ready[model]
        return self._choose[model](ready, request) if ready else None

    def join(self, worker: SimulatedWorker) -> None:
        """The worker is ready."""
        worker.queues = self._queues()
        self.ready[worker.model].append(worker)

    def leave(self, worker: SimulatedWorker, now: float) -> list[int]:
        """The worker takes nothing new any more. Returns what waited for it, in the order in which it would have taken
        it."""
        if worker not in self.ready[worker.model]:
            return []  # it was not ready yet, or has left before
        self.ready[worker.model].remove(worker)
        return emptied(worker.queues, now)


def emptied(queues: Queues, now: float) -> list[int]:
    """All that waits there, in its order, taken out."""
    return queues.claim(now, Room.of(queues.waiting))[0] if queues.waiting else []


def together(parts: Sequence[ModelQueues]) -> ModelQueues:
    """What the autoscaler reads of a model whose requests wait in several places."""
    first = parts[0]
    if len(parts) == 1:
        return first
    tiers = tuple(
        QueueState(
            first.model,
            states[0].tier,
            sum(state.length for state in states),
            max(state.oldest_age_s for state in states),
            max(state.waited_s for state in states),
            sum(state.arrived for state in states),
        )
        for states in zip(*(part.tiers for part in parts), strict=True)
    )
    return ModelQueues(first.model, tiers, first.inflight, first.dead)
