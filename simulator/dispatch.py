"""Dispatch: which worker takes which requests, and when what it holds ends. The rule of the room is applied here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.order.preemption import Room

from .events import EventKind
from .queueing.preemption import Preemption
from .queueing.push import PushRouter, emptied
from .results.outcome import Fate

if TYPE_CHECKING:
    from .state import RunState
    from .worker import SimulatedWorker


class Dispatch:
    """Moves requests between queues and workers: arrival, claim, end, preemption, return.

    Requests that are pushed are not preempted.
    """

    def __init__(self, state: RunState) -> None:
        self._state, self._trace = state, state.trace
        chooser = state.routing.chooser
        self.router = PushRouter(state, chooser) if chooser is not None else None
        """Chooses the worker of each request; None while workers pull."""
        self._preemption = Preemption(state, state.order.preempts and self.router is None)
        self._losses: dict[int, int] = {}
        """By request: the number of workers that were lost while they held it."""

    def arrive(self, request: int, now: float) -> None:
        """A request arrives: a worker takes it, or it is queued, or its queue is full and refuses it."""
        state = self._state
        model, tier = self._trace.model[request], self._trace.tier[request]
        queues, waiting = state.queues[model], state.open[model]
        queues.arrived[tier] += 1
        if self.router is not None and (chosen := self.router.worker_for(request)):
            self._push(chosen, request, now)
        elif worker := self._open_to(model, tier, now):
            if self._preemption.preemptible[tier]:  # it may come back: then its queue's clock goes on
                queues.push(request, now)
                queues.claim(now, Room.of(1))
            self._admit(worker, [request], now)
            if worker.room:
                waiting.rotate(-1)  # the one that waits longest is woken first, as blocking commands are
            else:
                waiting.popleft().listed = False
        elif len(queues.tiers[tier]) >= self._limit(model):
            self._end(request, Fate.REFUSED, now)
        else:
            queues.push(request, now)
            self._preemption.queued(model, tier, now)
            for listener in state.request_events.queued:
                listener(request, now)

    def finish(self, worker: SimulatedWorker, now: float) -> None:
        """Requests that the worker holds may end now."""
        if worker.due != now:
            return  # this event is out of date: something joined or left since it was added
        for request in worker.finish(now):
            self._end(request, Fate.DONE, now)
            worker.queues.ended(request, now)
            for listener in self._state.request_events.done:
                listener(request, now)
        worker.due = math.inf
        if worker.accepts:
            self.feed(worker, now)
        elif not worker.running:
            self._state.fleet.end(worker, now)
            return
        self._expect(worker, worker.next_due())

    def serve(self, worker: SimulatedWorker, now: float) -> None:
        """The worker has loaded, and takes requests from now on."""
        state = self._state
        if worker.name not in state.fleet.workers or worker.draining_since < math.inf:
            return
        state.fleet.ready(worker, now)
        worker.queues = state.queues[worker.model]
        if self.router is not None:
            self.router.join(worker)
            self._route(emptied(state.queues[worker.model], now), now)
        self.feed(worker, now)

    def feed(self, worker: SimulatedWorker, now: float) -> None:
        """Let a worker take waiting requests, as far as it has room."""
        queues = worker.queues
        while worker.room and queues.waiting:
            requests, overdue = queues.claim(now, self._preemption.room(worker, now))
            if not requests:
                break
            self._admit(worker, requests, now, overdue)
        if worker.room and not worker.listed:
            worker.listed = True
            self._state.open[worker.model].append(worker)

    def preempt(self, model: int, now: float) -> None:
        """Requests of the model that have waited for the grace period take the slots of preemptible ones."""
        queues = self._state.queues[model]
        self._preemption.begin(model)
        while queues.urgent and (found := self._preemption.next_victims(model, queues.urgent)):
            worker, victims = found
            self._expect(worker, worker.preempt(victims, now))
            queues.give_back(victims[::-1], now)
            self.feed(worker, now)

    def resume(self, worker: SimulatedWorker, now: float) -> None:
        """The worker's pause between preemptible requests is over."""
        if worker.accepts:
            self.feed(worker, now)

    def withdraw(self, worker: SimulatedWorker, now: float) -> None:
        """A worker takes nothing new any more: requests that were pushed to it and wait go to others."""
        if self.router is not None:
            self._route(self.router.leave(worker, now), now)

    def drop(self, worker: SimulatedWorker, now: float) -> None:
        """A worker is lost: what it held is redelivered once its leases have run out, or is dead."""
        state, lost = self._state, []
        for request in worker.lose():
            losses = self._losses[request] = self._losses.get(request, 0) + 1
            if losses >= state.settings.redis.max_losses:
                state.dead[worker.model] += 1
                self._end(request, Fate.DEAD, now)
            else:
                lost.append(request)
        if lost:
            state.events.add(now + state.settings.redis.lease_s, EventKind.REDELIVERY, lost)
        self.withdraw(worker, now)
        state.fleet.end(worker, now)

    def redeliver(self, requests: Sequence[int], now: float) -> None:
        """The leases of a lost worker's requests have run out."""
        self._give_back(self._trace.model[requests[0]], requests, now)

    def hand_back(self, worker: SimulatedWorker, now: float) -> None:
        """A draining worker's grace period is over: it gives back what it holds, and ends."""
        if worker.name in self._state.fleet.workers:
            held = worker.lose()
            self._state.fleet.end(worker, now)
            self._give_back(worker.model, held, now)

    def _give_back(self, model: int, requests: Sequence[int], now: float) -> None:
        """Queue requests of one model that were claimed, the oldest first, before all others of their tiers."""
        if self.router is not None:
            self._route(requests, now)
            return
        queues = self._state.queues[model]
        queues.give_back(requests, now)
        for worker in tuple(self._state.open[model]):
            if not queues.waiting:
                break
            self.feed(worker, now)

    def _open_to(self, model: int, tier: int, now: float) -> SimulatedWorker | None:
        """The worker that a new request of the tier goes to; None if others wait that go before it."""
        queues, waiting = self._state.queues[model], self._state.open[model]
        while waiting and not waiting[0].room:
            waiting.popleft().listed = False
        if not self._preemption.preemptible[tier]:
            return waiting[0] if waiting and not queues.urgent else None
        for _ in range(0 if queues.waiting else len(waiting)):
            if self._preemption.room(waiting[0], now).preemptible > 0:
                return waiting[0]
            waiting.rotate(-1)
        return None

    def _admit(self, worker: SimulatedWorker, requests: list[int], now: float, overdue: bool = False) -> None:
        started = self._state.outcome.started
        for request in requests:
            if started[request] != started[request]:
                started[request] = now
                for listener in self._state.request_events.started:
                    listener(request, now)
        self._expect(worker, self._preemption.admit(worker, requests, overdue, now))

    def _expect(self, worker: SimulatedWorker, due: float) -> None:
        """A request that the worker holds ends at ``due``, if nothing joins or leaves."""
        if due < worker.due:  # if it is later, the earlier event looks again
            worker.due = due
            self._state.events.add(due, EventKind.WORKER_DUE, worker)

    def _end(self, request: int, fate: Fate, now: float) -> None:
        """A request ends, which it does only once."""
        outcome = self._state.outcome
        assert not outcome.fate[request], f"request {request} ended twice"
        outcome.fate[request] = fate
        outcome.ended[request] = now
        self._state.unfinished -= 1

    def _push(self, worker: SimulatedWorker, request: int, now: float) -> None:
        """Send a request that has just arrived to a worker, behind what waits there."""
        model = worker.model
        if not worker.room and self._state.queued(model, self._trace.tier[request]) >= self._limit(model):
            self._end(request, Fate.REFUSED, now)
        else:
            worker.queues.push(request, now)
            self.feed(worker, now)

    def _route(self, requests: Sequence[int], now: float) -> None:
        """Route requests of one model that have waited before, each to the head of its new queue."""
        if self.router is None or not requests:
            return
        model = self._trace.model[requests[0]]
        for request in reversed(requests):
            worker = self.router.worker_for(request)
            queues = self._state.queues[model] if worker is None else worker.queues
            queues.give_back([request], now)
        for worker in self._state.pushed_to[model]:
            self.feed(worker, now)

    def _limit(self, model: int) -> int:
        """The most requests that may wait in one queue of the model."""
        return self._state.settings.models[self._trace.models[model]].limits.max_queued
