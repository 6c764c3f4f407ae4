"""A run: arrivals, claims, ends, autoscaler rounds and failures, in the order of the virtual clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autoscaler.reconciler import Reconciler

from .dispatch import Dispatch
from .events import EventKind
from .queueing.queue_policy import LIVE, QueuePolicy
from .queueing.routing import PULL, Routing
from .rounds import Rounds
from .state import RunState

if TYPE_CHECKING:
    from autoscaler.sizing.policy_registry import Policy
    from producer.contract.fleet.settings import Settings

    from .hardware import Hardware
    from .results.outcome import FleetSample, RunOutcome
    from .traces.trace import Trace

PROGRESS_EVERY = 20_000
"""Requests that end between two reports of the progress."""


class Simulation:
    """One run of a trace through a fleet, under a scaling policy, an order of queues and a routing. The same seed gives
    the same run.

    Args:
        settings: the fleet file: tiers, models with their bounds and concurrency, the pace of scaling.
        trace: with models and tiers assigned.
        sample_s: the time between two samples of the fleet for the picture, in seconds.
        patience_s: the run ends this many seconds after the last arrival; unfinished requests are then ``OPEN``.
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
        routing: Routing = PULL,
    ) -> None:
        self.state = RunState(settings, hardware, trace, order, routing, seed)
        self.dispatch = Dispatch(self.state)
        self.rounds = Rounds(self.state, self.dispatch, Reconciler(policy))
        self.handlers: dict[EventKind, Callable[[Any, float], None]] = {
            EventKind.WORKER_DUE: self.dispatch.finish,
            EventKind.WORKER_READY: self.dispatch.serve,
            EventKind.ROUND: self._round,
            EventKind.FAILURE: self._fail,
            EventKind.REPAIR: self._repair,
            EventKind.REDELIVERY: self.dispatch.redeliver,
            EventKind.HAND_BACK: self.dispatch.hand_back,
            EventKind.PREEMPTION: self.dispatch.preempt,
            EventKind.PAUSE_OVER: self.dispatch.resume,
        }
        """Each is called with the subject of the event and the time in seconds."""
        self._sample_s, self._patience_s = sample_s, patience_s
        self._rng = random.Random(seed + 1)
        self._samples: list[FleetSample] = []

    def run(self, progress: Callable[[int], None] | None = None) -> RunOutcome:
        """Run until every request has ended, or patience has.

        Args:
            progress: called now and then with the number of requests that have ended.
        """
        state, handlers = self.state, self.handlers
        at, heap, arrive = state.trace.at, state.events.heap, self.dispatch.arrive
        state.events.add(0.0, EventKind.ROUND)
        for place in range(len(state.fleet.devices)):
            self._expect_failure(place, 0.0)
        coming, count, now, reported = 0, len(at), 0.0, 0
        give_up = state.trace.lasts_s + self._patience_s
        while state.unfinished and now <= give_up:
            if coming < count and at[coming] <= heap[0][0]:
                now = at[coming]
                arrive(coming, now)
                coming += 1
            else:
                now, _, kind, subject = heapq.heappop(heap)
                handlers[kind](subject, now)
            if progress is not None and count - state.unfinished - reported >= PROGRESS_EVERY:
                reported = count - state.unfinished
                progress(reported)
        return self._conclude(now)

    def _round(self, _: object, now: float) -> None:
        self.rounds.round(now)
        if not self._samples or now - self._samples[-1].at >= self._sample_s - 1e-9:
            self._samples.append(self.rounds.sample(now))
        self.state.events.add(now + self.state.settings.scaling.interval_s, EventKind.ROUND)

    def _fail(self, place: int, now: float) -> None:
        fleet = self.state.fleet
        worker = fleet.break_down(place, "lost")
        self.state.outcome.failures += 1
        if worker is not None:  # lost with its device, which is no failed start (autoscaler/devices/device_deaths.py)
            self.dispatch.drop(worker, now)
        self.state.events.add(now + fleet.types[place].repair_s, EventKind.REPAIR, place)

    def _repair(self, place: int, now: float) -> None:
        self.state.fleet.repair(place)
        self._expect_failure(place, now)

    def _expect_failure(self, place: int, now: float) -> None:
        self.state.events.add(self.state.fleet.next_failure(self._rng, place, now), EventKind.FAILURE, place)

    def _conclude(self, now: float) -> RunOutcome:
        state, outcome = self.state, self.state.outcome
        outcome.ends_at = now
        outcome.device_s = state.fleet.settle(now)
        outcome.starts = state.fleet.starts
        outcome.events = state.events.added + len(state.trace)
        outcome.samples = self._samples
        return outcome
