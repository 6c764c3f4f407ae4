"""The run: arrivals, claims, completions, autoscaler rounds and failures, in the order of the virtual clock."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from autoscaler.reconciler import Reconciler
from scheduler.order.preemption import Room

from .events import EventQueue, What
from .fleet import SimulatedFleet
from .queueing.preemption import Yielding
from .queueing.push import PushRouter, emptied
from .queueing.queue_policy import LIVE, QueuePolicy
from .queueing.queues import Queues
from .queueing.routing import PULL, Routing
from .results.outcome import Fate, FleetSample, RunOutcome
from .rounds import Rounds

if TYPE_CHECKING:
    from autoscaler.sizing.policy import Policy
    from producer.contract.settings import Settings

    from .hardware import Hardware
    from .results.estimates import SimulatedEstimates
    from .traces.trace import Trace
    from .worker import SimulatedWorker

PROGRESS_EVERY = 20_000


class Simulation:
    """One run of a trace through a fleet, under a scaling policy, an order of queues and a routing. The same seed, the
    same run.

    Args:
        settings: the fleet file: tiers, models with their bounds and concurrency, the pace of scaling.
        trace: with models and tiers assigned.
        sample_s: how often the fleet is looked at for the picture.
        foresight: estimates for those that wait in their model's queue, as they do unless they are pushed.
        patience_s: how long after the last arrival nothing may happen before the rest is given up as ``OPEN``.
    """

    def __init__(
        self,
        settings: Settings,
        hardware: Hardware,
        trace: Trace,
        policy: Policy,
        order: QueuePolicy = LIVE,
        seed: int = 0,
        sample_s: float = 5.0,
        patience_s: float = 3600.0,
        foresight: SimulatedEstimates | None = None,
        routing: Routing = PULL,
    ) -> None:
        if foresight is not None and routing is not PULL:
            raise ValueError(f"estimates are for requests that wait in their model's queue, not by {routing.name}")
        self.settings, self.trace = settings, trace
        self.sample_s, self.patience_s, self.foresight = sample_s, patience_s, foresight
        self.fleet = SimulatedFleet(settings, hardware, trace, seed)

        def queues() -> Queues:
            return Queues(settings, trace, order)

        self.queues = [queues() for _ in trace.models]
        self.push = PushRouter(self, routing.chooser, queues) if routing.chooser is not None else None
        self.open: list[deque[SimulatedWorker]] = [deque() for _ in trace.models]
        self.rounds = Rounds(self, Reconciler(policy))
        self.dead = [0] * len(trace.models)
        self.yielding = Yielding(self, order.preempts and self.push is None)
        count = len(trace)
        self.outcome = RunOutcome(trace, [math.nan] * count, [math.nan] * count, bytearray(count))
        self.left = count
        self._rng = random.Random(seed + 1)
        self._losses: dict[int, int] = {}
        self.events = EventQueue()
        self._samples: list[FleetSample] = []

    def run(self, progress: Callable[[int], None] | None = None) -> RunOutcome:
        """Until every request has ended.

        Args:
            progress: told how many have, now and then.
        """
        at, heap = self.trace.at, self.events.heap
        handlers = (
            self._due,
            self._ready,
            self._round,
            self._fail,
            self._repair,
            self._redeliver,
            self._hand_back,
            self.yielding.preempt,
            self.yielding.resume,
        )
        self.events.add(0.0, What.ROUND)
        for place in range(len(self.fleet.devices)):
            self.events.add(self.fleet.next_failure(self._rng, place, 0.0), What.FAILURE, place)
        coming, count, now, told = 0, len(at), 0.0, 0
        give_up = self.trace.lasts_s + self.patience_s
        while self.left and now <= give_up:
            if coming < count and at[coming] <= heap[0][0]:
                now = at[coming]
                self._arrive(coming, now)
                coming += 1
            else:
                now, _, what, whom = heapq.heappop(heap)
                handlers[what](whom, now)
            if progress is not None and count - self.left - told >= PROGRESS_EVERY:
                told = count - self.left
                progress(told)
        return self._conclude(now)

    def end(self, request: int, fate: Fate, now: float) -> None:
        """A request ends, once and for all."""
        assert not self.outcome.fate[request], f"request {request} ended twice"
        self.outcome.fate[request] = fate
        self.outcome.ended[request] = now
        self.left -= 1

    def give_back(self, model: int, requests: Sequence[int], now: float) -> None:
        """Queue requests of one model that were claimed, the oldest first, before all others of their tiers."""
        if self.push is not None:
            self.push.route(requests, now)
            return
        self.queues[model].give_back(requests, now)
        self._feed_all(model, now)

    def parts(self, model: int) -> list[Queues]:
        """Wherever requests of a model wait: in its queues and, when they are pushed, in those of its workers."""
        return [self.queues[model], *(worker.queues for worker in (self.push.ready[model] if self.push else ()))]

    def queued(self, model: int, tier: int) -> int:
        """How many requests of a model's tier wait."""
        return sum(len(queues.tiers[tier]) for queues in self.parts(model))

    def withdraw(self, worker: SimulatedWorker, now: float) -> None:
        """A worker takes nothing new any more: what only waits for it goes to others."""
        if self.push is not None:
            self.push.route(self.push.leave(worker, now), now)

    def drop(self, worker: SimulatedWorker, now: float) -> None:
        """A worker is gone at once: what it held comes back when its leases have run out, or is dead."""
        lost = []
        for request in worker.lose():
            losses = self._losses[request] = self._losses.get(request, 0) + 1
            if losses >= self.settings.redis.max_losses:
                self.dead[worker.model] += 1
                self.end(request, Fate.DEAD, now)
            else:
                lost.append(request)
        if lost:
            self.events.add(now + self.settings.redis.lease_s, What.REDELIVERY, lost)
        self.withdraw(worker, now)
        self.fleet.end(worker, now)

    def _arrive(self, request: int, now: float) -> None:
        model, tier = self.trace.model[request], self.trace.tier[request]
        queues, waiting = self.queues[model], self.open[model]
        queues.arrived[tier] += 1
        if self.push is not None and self.push.send(request, now):
            return
        if worker := self._open_to(model, tier, now):
            if self.yielding.preemptible[tier]:  # it may come back: then its queue's clock goes on
                queues.push(request, now)
                queues.claim(now, Room.of(1))
            self._admit(worker, [request], now)
            if worker.room:
                waiting.rotate(-1)  # those that wait longest are woken first, as blocking commands are
            else:
                waiting.popleft().listed = False
        elif len(queues.tiers[tier]) >= self.settings.models[self.trace.models[model]].limits.max_queued:
            self.end(request, Fate.REFUSED, now)
        else:
            queues.push(request, now)
            self.yielding.queued(model, tier, now)
            if self.foresight is not None:
                self.foresight.queued(self, request, now)

    def _open_to(self, model: int, tier: int, now: float) -> SimulatedWorker | None:
        """The worker that a new request of the tier goes to, if nothing waits that goes before it."""
        queues, waiting = self.queues[model], self.open[model]
        while waiting and not waiting[0].room:
            waiting.popleft().listed = False
        if not self.yielding.preemptible[tier]:
            return waiting[0] if waiting and not queues.urgent else None
        for _ in range(0 if queues.waiting else len(waiting)):
            if self.yielding.room(waiting[0], now).preemptible > 0:
                return waiting[0]
            waiting.rotate(-1)
        return None

    def _admit(self, worker: SimulatedWorker, requests: list[int], now: float, overdue: bool = False) -> None:
        started = self.outcome.started
        for request in requests:
            if started[request] != started[request]:
                started[request] = now
                if self.foresight is not None:
                    self.foresight.started(self, request, now)
        self.expect(worker, self.yielding.admit(worker, requests, overdue, now))

    def expect(self, worker: SimulatedWorker, due: float) -> None:
        """Something that a worker holds ends by then, if nothing joins or leaves."""
        if due < worker.due:  # a later one is looked at again when the earlier comes
            worker.due = due
            self.events.add(due, What.WORKER_DUE, worker)

    def feed(self, worker: SimulatedWorker, now: float) -> None:
        """Let a worker take what waits, as far as it has room."""
        queues = worker.queues
        while worker.room and queues.waiting:
            requests, overdue = queues.claim(now, self.yielding.room(worker, now))
            if not requests:
                break
            self._admit(worker, requests, now, overdue)
        if worker.room and not worker.listed:
            worker.listed = True
            self.open[worker.model].append(worker)

    def _feed_all(self, model: int, now: float) -> None:
        for worker in tuple(self.open[model]):
            if not self.queues[model].waiting:
                break
            self.feed(worker, now)

    def _due(self, whom: object, now: float) -> None:
        worker: SimulatedWorker = whom  # type: ignore[assignment]  # the payload of this kind of event
        if worker.due != now:
            return
        for request in worker.finish(now):
            self.end(request, Fate.DONE, now)
            worker.queues.ended(request, now)
            if self.foresight is not None:
                self.foresight.ended(self, request, now)
        worker.due = math.inf
        if worker.accepts:
            self.feed(worker, now)
        elif not worker.running:
            self.fleet.end(worker, now)
            return
        self.expect(worker, worker.next_due())

    def _ready(self, whom: object, now: float) -> None:
        worker: SimulatedWorker = whom  # type: ignore[assignment]
        if worker.name in self.fleet.workers and worker.draining_since == math.inf:
            self.fleet.ready(worker, now)
            worker.queues = self.queues[worker.model]
            if self.push is not None:
                self.push.join(worker)
                self.push.route(emptied(self.queues[worker.model], now), now)
            self.feed(worker, now)

    def _round(self, _: object, now: float) -> None:
        self.rounds.round(now)
        interval = self.settings.scaling.interval_s
        if not self._samples or now - self._samples[-1].at >= self.sample_s - 1e-9:
            self._samples.append(self.rounds.sample(now))
        self.events.add(now + interval, What.ROUND)

    def _fail(self, whom: object, now: float) -> None:
        place: int = whom  # type: ignore[assignment]
        worker = self.fleet.break_down(place, "lost")
        self.outcome.failures += 1
        if worker is not None:
            self.rounds.ended_unasked(worker, now)
            self.drop(worker, now)
        self.events.add(now + self.fleet.types[place].repair_s, What.REPAIR, place)

    def _repair(self, whom: object, now: float) -> None:
        place: int = whom  # type: ignore[assignment]
        self.fleet.repair(place)
        self.events.add(self.fleet.next_failure(self._rng, place, now), What.FAILURE, place)

    def _redeliver(self, whom: object, now: float) -> None:
        requests: list[int] = whom  # type: ignore[assignment]
        self.give_back(self.trace.model[requests[0]], requests, now)

    def _hand_back(self, whom: object, now: float) -> None:
        worker: SimulatedWorker = whom  # type: ignore[assignment]
        if worker.name in self.fleet.workers:
            held = worker.lose()
            self.fleet.end(worker, now)
            self.give_back(worker.model, held, now)

    def _conclude(self, now: float) -> RunOutcome:
        outcome = self.outcome
        outcome.ends_at = now
        outcome.device_s = self.fleet.settle(now)
        outcome.starts = self.fleet.starts
        outcome.events = self.events.made + len(self.trace)
        outcome.samples = self._samples
        return outcome
