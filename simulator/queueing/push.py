"""Pushed requests: each waits in the queues of one worker, in the same order as it would in the model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scheduler.order.preemption import Room
from scheduler.queue_lengths import ModelQueues, QueueState

from .queues import Queues

if TYPE_CHECKING:
    from ..state import RunState
    from ..traces.trace import Trace
    from ..worker import SimulatedWorker
    from .routing import Choose


class PushRouter:
    """Chooses the worker that a request is pushed to.

    A worker gets nothing before it is ready, and nothing once it drains or is lost: what waited for it is then routed
    again at once, as by a balancer that sees its connections break. While none is ready, requests wait in the model's
    queues, and all of them go to the first worker that is.
    """

    def __init__(self, state: RunState, chooser: Callable[[Trace], Choose]) -> None:
        self._state, self._ready = state, state.pushed_to
        self._choose = [chooser(state.trace) for _ in state.trace.models]

    def worker_for(self, request: int) -> SimulatedWorker | None:
        """The worker of a request; None while none of its model is ready."""
        model = self._state.trace.model[request]
        ready = self._ready[model]
        return self._choose[model](ready, request) if ready else None

    def join(self, worker: SimulatedWorker) -> None:
        """The worker is ready, and gets queues of its own."""
        worker.queues = Queues(self._state.settings, self._state.trace, self._state.order)
        self._ready[worker.model].append(worker)

    def leave(self, worker: SimulatedWorker, now: float) -> list[int]:
        """The worker takes nothing new any more. Returns the requests that waited for it, in their order."""
        ready = self._ready[worker.model]
        if worker not in ready:
            return []  # it was not ready yet, or has left before
        ready.remove(worker)
        return emptied(worker.queues, now)


def emptied(queues: Queues, now: float) -> list[int]:
    """Take all waiting requests out of the queues, in their order."""
    return queues.claim(now, Room.of(queues.waiting))[0] if queues.waiting else []


def together(parts: Sequence[ModelQueues]) -> ModelQueues:
    """One model's queues as the autoscaler reads them, added up over the places in which its requests wait."""
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
