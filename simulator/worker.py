"""A worker on the virtual clock: when what it holds will be done."""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from autoscaler.roster import Phase
from autoscaler.roster import Worker as Seen
from scheduler.meter import Meter
from scheduler.order.preemption import Prefill

if TYPE_CHECKING:
    from .queueing.queues import Queues
    from .service import ServiceModel
    from .traces.trace import Trace

ROUNDING = 1e-9


class SimulatedWorker:
    """One replica on one device.

    A continuous engine keeps a clock that counts tokens. Each step advances it by one for all running requests, so a
    request that joins at token ``v`` and generates ``k`` ends at ``v + k``, whichever requests join or leave meanwhile.
    An event costs the logarithm of the number of running requests.
    """

    __slots__ = (
        "_at", "_clock", "_ends", "_inputs", "_meter", "_outputs", "_service", "_stalled_until", "accepts", "capacity",
        "device", "draining_since", "due", "kept", "listed", "load_s", "model", "name", "others_at", "preemptible",
        "prefill", "queues", "ready_at", "room", "started_at",
    )  # fmt: skip

    def __init__(
        self, name: str, model: int, device: int, service: ServiceModel, capacity: int, trace: Trace, now: float
    ) -> None:
        self.name, self.model, self.device, self.capacity = name, model, device, capacity
        self.started_at, self.ready_at, self.draining_since = now, math.inf, math.inf
        self.load_s = 0.0
        self.room = 0
        self.accepts = False
        self.queues: Queues
        """Where it takes requests from, once it is ready: its model's, or its own when they are pushed."""
        self.listed = False
        """Whether it waits for new requests, in the simulation's list of those that do."""
        self.due = math.inf
        """The time of its next event; others that are still in the heap are out of date."""
        self.others_at = -math.inf
        """When it took a request of a tier that is not preemptible."""
        self.preemptible: dict[int, float] = {}
        """Requests of preemptible tiers, the oldest first, and when the prompt of each has been read."""
        self.kept: set[int] = set()
        """Of these, those that are not to be preempted."""
        self.prefill = Prefill()
        """The last one of a preemptible tier."""
        self._service = service
        self._inputs, self._outputs = trace.input_tokens, trace.output_tokens
        self._ends: list[tuple[float, int]] = []  # a heap of (token at which it ends, request)
        self._clock = 0.0
        self._at = self._stalled_until = now
        self._meter = Meter()

    @property
    def running(self) -> int:
        """How many requests it holds."""
        return len(self._ends)

    @property
    def measured(self) -> bool:
        """Whether its rate is known."""
        return self._meter.known

    @property
    def jobs_per_s(self) -> float:
        """What it was measured to do; 0 until its first request is done."""
        return self._meter.jobs_per_s

    @property
    def slots(self) -> int:
        """See :func:`scheduler.order.preemption.room`."""
        return 0 if self._service.batches else self.capacity

    def ready(self, now: float) -> None:
        """It has loaded, and serves from now on."""
        self.ready_at, self.load_s = now, now - self.started_at
        self.room, self.accepts = self.capacity, True
        self._at = self._stalled_until = now

    def admit(self, requests: Sequence[int], now: float, preemptible: Container[int] = ()) -> float:
        """Take these, at most as many as there is room for. Returns when the next of all it holds ends.

        Args:
            preemptible: those of them of preemptible tiers; of an engine that batches, none.
        """
        service, ends = self._service, self._ends
        self._meter.begin(now)
        if service.batches:
            prompts = sum(self._inputs[request] for request in requests) * service.prompt_token_s
            self._clock = now + service.step_s + service.sequence_s * len(requests) + prompts
            ends += [(self._clock, request) for request in requests]  # all alike: a heap already
            self.room = 0
            return self._clock
        self._advance(now)
        stalled = self._stalled_until if self._stalled_until > now else now
        clock, per_token = self._clock, service.prompt_token_s
        for request in requests:
            stalled += self._inputs[request] * per_token
            if request in preemptible:
                self.preemptible[request] = stalled
                self.prefill = Prefill(stalled, self._inputs[request] * per_token)
            heapq.heappush(ends, (clock + self._outputs[request], request))
        self._stalled_until = stalled
        self.room -= len(requests)
        return self._next()

    def finish(self, now: float) -> list[int]:
        """The requests that end now, in the order in which they do; empty when it is not yet time for any."""
        ends = self._ends
        if not self._service.batches:
            self._advance(now)
        done: list[int] = []
        held = len(ends)
        limit = self._clock + ROUNDING * max(1.0, self._clock)
        while ends and ends[0][0] <= limit:
            done.append(heapq.heappop(ends)[1])
            self.preemptible.pop(done[-1], None)
            self.kept.discard(done[-1])
        if done:
            self._meter.done(now, len(done), len(done) * held, idle=not ends)
            if self.accepts:
                self.room = self.capacity - len(ends)
        return done

    def next_due(self) -> float:
        """When the next of what it holds ends, if nothing joins; infinity when it holds nothing."""
        if not self._ends:
            return math.inf
        return self._clock if self._service.batches else self._next()

    def lose(self) -> list[int]:
        """Let go of everything that it holds, unfinished: in the order in which it came."""
        lost = sorted(request for _, request in self._ends)
        self._ends.clear()
        self.preemptible.clear()
        self.kept.clear()
        self.accepts, self.room, self.due = False, 0, math.inf
        return lost

    def preempt(self, requests: Sequence[int], now: float) -> float:
        """Let go of these. Prompts that were not read yet are read no more. Returns when the next of the rest ends."""
        self._advance(now)
        if self.prefill.read_at > now:  # it is one of these, for the youngest go: the pause before it was over
            self.prefill = Prefill()
        for request in requests:
            unread_s = self.preemptible.pop(request) - now
            self._stalled_until -= max(0.0, min(unread_s, self._inputs[request] * self._service.prompt_token_s))
        gone = set(requests)
        self._ends = [end for end in self._ends if end[1] not in gone]
        heapq.heapify(self._ends)
        if not self._ends:
            self._meter.done(now, 0, 0, idle=True)
        self.room += len(requests)
        return self.next_due()

    def drain(self, now: float) -> None:
        """Take nothing new from now on."""
        self.accepts, self.room = False, 0
        self.draining_since = min(self.draining_since, now)

    def phase(self, now: float) -> Phase:
        """Its phase now."""
        if self.draining_since <= now:
            return Phase.DRAINING
        return Phase.READY if self.ready_at <= now else Phase.LOADING

    def seen(self, model: str, device: str, now: float) -> Seen:
        """What its heartbeat would tell the autoscaler."""
        phase, meter, running = self.phase(now), self._meter, len(self._ends)
        meter.look(now)
        return Seen(
            self.name, model, device, phase, True, self.started_at,
            draining_since=self.draining_since if phase is Phase.DRAINING else None,
            running=running,
            free_slots=max(0, self.capacity - running) if phase is Phase.READY else 0,
            jobs_per_s=meter.jobs_per_s,
            load_s=self.load_s,
            batch_size=meter.batch_size,
        )  # fmt: skip

    def _advance(self, now: float) -> None:
        begun = self._at if self._at > self._stalled_until else self._stalled_until
        if now > begun and self._ends:
            self._clock += (now - begun) / (self._service.step_s + self._service.sequence_s * len(self._ends))
        self._at = now

    def _next(self) -> float:
        step = self._service.step_s + self._service.sequence_s * len(self._ends)
        begun = self._at if self._at > self._stalled_until else self._stalled_until
        return begun + max(0.0, self._ends[0][0] - self._clock) * step
