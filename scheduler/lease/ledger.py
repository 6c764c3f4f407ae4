"""The leases that one worker holds, and the ends of its jobs that are not yet committed.

The pool records here how each job ends. ``flush`` commits all ends at once, in one round trip for a batch of results,
before the event loop sleeps or claims more jobs (``Poller.on_poll_start``).
"""

from __future__ import annotations

import enum
import logging
import math
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from redis.exceptions import ResponseError

from producer.contract.server.redis_errors import refusal

from ..order import preemption
from ..order.preemption import Prefill, Room
from .queue import Claim, Claimed, Queue
from .taker import NoTaker, Taker
from .trials import Order, Trials

logger = logging.getLogger(__name__)

REFUSED_S = 0.5
"""Pause before the next command to a Redis that refused to serve, in seconds."""

FINISH_AT_ONCE = 500
"""Most jobs ended in one step, so that Redis is never blocked for long."""


class State(enum.IntEnum):
    """How a held job shares the worker. An ``IntEnum``, because an ``Enum`` is hashed in Python code."""

    ALONE = enum.auto()
    """A suspect, beside which the worker takes no other job."""
    ORDINARY = enum.auto()
    """Of a tier that is not preemptible, or held for an engine without slots."""
    PREEMPTIBLE = enum.auto()
    PROTECTED = enum.auto()
    """Of a preemptible tier, but not preempted: it was claimed overdue."""


ALONE, ORDINARY, PREEMPTIBLE, PROTECTED = State  # Python 3.11 looks members up in Python code


@dataclass(slots=True)
class HeldJob:
    """A held job. Its lease is its key in the ledger."""

    state: State
    id: str = ""
    """Empty until its message is read."""


class Ledger:
    """The ledger of one worker. ``held`` and ``renew`` are thread-safe; all else belongs to the event loop."""

    def __init__(self, queue: Queue, worker: str = "worker") -> None:
        self.queue = queue
        self.taker: Taker = NoTaker()
        self._owner = f"{worker}.{uuid.uuid4().hex[:8]}"  # differs between processes of the same name
        self._claims = count()
        self._lock = threading.Lock()  # for _held
        self._held: dict[str, HeldJob] = {}  # by lease, the oldest first
        self._number = dict.fromkeys(State, 0)  # of held jobs
        self._unread: dict[str, float] = {}  # jobs of preemptible tiers whose prefill has not ended: patience by lease
        self._prefill = Prefill()
        self._others_at = -math.inf  # monotonic time of the last job taken of a tier that is not preemptible
        self._trials = Trials(time.monotonic())
        self._order = Order.LAST  # of suspects in the last claim
        self._refused_until = -math.inf  # monotonic time until which Redis is left alone; -inf while it serves
        # Ended and not yet committed, by the command that commits them:
        self._done: list[tuple[str, str, bytes]] = []  # lease, job id, result
        self._released: list[str] = []
        self._abandoned: list[str] = []
        self._buried: list[tuple[str, str, Sequence[str]]] = []  # lease, reason, followers

    def __json__(self) -> str:
        """The text in ``inspect stats``, which publishes the transport's options."""
        return f"ledger of {self._owner}"

    @property
    def held(self) -> dict[str, str]:
        """Ids of the held jobs, by lease."""
        with self._lock:
            return {lease: job.id for lease, job in self._held.items()}

    @property
    def count(self) -> int:
        """Number of held jobs."""
        return len(self._held)

    @property
    def room(self) -> Room:
        """How many more jobs the worker may take."""
        alone, ordinary, preemptible, _ = self._number.values()  # in the order of State
        if alone:
            return Room.of(0)
        now = time.monotonic()
        prefill = Prefill(math.inf) if self._unread else self._prefill
        return preemption.room(
            self.taker.capacity,
            self.taker.slots,
            self.count,
            preemptible,
            others_s=0.0 if ordinary else now - self._others_at,
            pause_s=prefill.next_at(beside_others=ordinary > 0) - now,
        )

    @property
    def open_queues(self) -> list[str]:
        """The queues that there is room for."""
        room = self.room
        if room.of_tier(preemptible=True) > 0 and room.of_tier(preemptible=False) > 0:
            return self.queue.queues
        return [name for name in self.queue.queues if room.of_tier(name in self.queue.preemptible) > 0]

    @property
    def preemptible(self) -> list[str]:
        """Leases of the jobs that may be preempted, the oldest first."""
        return [lease for lease, job in self._held.items() if job.state is PREEMPTIBLE]

    def claim_command(self) -> list[Any]:
        """The command that claims jobs for all the room."""
        owner = f"{self._owner}.{next(self._claims)}"
        self._order = self._trials.order(time.monotonic())
        return self.queue.claim_command(self.room, owner, not self._held, self.taker.hold(), self._order)

    @property
    def wants_suspect(self) -> bool:
        """Whether a suspect that is queued is a reason to claim now."""
        order = self._trials.order(time.monotonic())
        return order is Order.FIRST or (order is Order.LAST and not self._held)

    def empties(self, claim: Claim) -> bool:
        """Whether the worker takes no job now in order to hold none, because a suspect is first; ``claim`` is the
        answer to the last ``claim_command``."""
        if claim.suspects and not claim.jobs and self._order is Order.FIRST:
            self._trials.begin(time.monotonic())
            return True
        if not claim.suspects:
            self._trials.end(time.monotonic())
        return False

    def take(self, claimed: Iterable[Claimed], overdue: bool = False, patience: float = 1.0) -> None:
        """Record the jobs of a claim, whose ids are not known yet; ``overdue`` and ``patience`` as in the claim."""
        now = time.monotonic()
        with self._lock:
            for job in claimed:
                state = self._state(job, overdue, patience)
                self._held[job.lease] = HeldJob(state)
                self._number[state] += 1
                if state is ALONE:
                    self._trials.begin(now)
                else:
                    self._trials.serve(now)

    def _state(self, job: Claimed, overdue: bool, patience: float) -> State:
        can_wait = job.queue in self.queue.preemptible
        preemptible = can_wait and self.taker.slots > 0
        if preemptible:
            self._unread[job.lease] = patience
        elif not can_wait:
            self._others_at = time.monotonic()
        if job.losses >= self.queue.suspect_at:
            return ALONE
        if not preemptible:
            return ORDINARY
        return PROTECTED if overdue else PREEMPTIBLE

    def prefilled(self, lease: str, stall_s: float) -> float:
        """Record the end of a job's prefill, which stalled the running sequences for ``stall_s`` seconds.

        Returns:
            Seconds until another job of a preemptible tier may join; 0 if this job is not of such a tier.
        """
        if (patience := self._unread.pop(lease, None)) is None:
            return 0.0
        now = time.monotonic()
        self._prefill = Prefill(now, stall_s, patience)
        return self._prefill.next_at(beside_others=True) - now

    def name(self, lease: str, job_id: str) -> None:
        """Set the id of a held job, under which its result is stored."""
        self._held[lease].id = job_id

    def done(self, lease: str, result: bytes = b"") -> None:
        """End a job, with its result if one is stored."""
        if job := self._drop(lease):
            self._done.append((lease, job.id, result))

    def release(self, leases: Iterable[str]) -> None:
        """Give jobs back to the head of their queues, without a loss."""
        self._released += [lease for lease in leases if self._drop(lease)]

    def abandon(self, leases: Iterable[str]) -> None:
        """Expire the leases of jobs, as if the worker had died: each job counts a loss."""
        self._abandoned += [lease for lease in leases if self._drop(lease)]

    def bury(self, lease: str, reason: str, followers: Sequence[str] = ()) -> None:
        """Move a job to the dead letters; ``followers`` as in :meth:`Queue.bury`."""
        logger.error("dead letter %s: %s", lease, reason)
        self._drop(lease)
        self._buried.append((lease, reason, followers))

    def defer(self, lease: str) -> bool:
        """Defer a job to be tried again, at once rather than by ``flush``; False when its retries are used up."""
        retry = self.queue.defer(lease)
        if retry:
            self._drop(lease)
            logger.warning("job %s is deferred; retry %d follows", lease, retry)
        return retry != 0

    def _drop(self, lease: str) -> HeldJob | None:
        with self._lock:
            job = self._held.pop(lease, None)
        if job is not None:
            self._number[job.state] -= 1
            if job.state is ALONE:
                self._trials.end(time.monotonic())
            self._unread.pop(lease, None)
        return job

    def flush(self, urgent: bool = False) -> None:
        """Commit the ends of jobs. A later call commits those that a broken connection, or a Redis that refuses to
        serve, leaves over.

        Args:
            urgent: whether to try even if Redis has just refused.

        Raises:
            RedisError: the connection broke, or Redis answered with an error that is not a refusal to serve.
        """
        if time.monotonic() < self._refused_until and not urgent:
            return
        try:
            self._commit()
            self._refused_until = -math.inf
        except ResponseError as error:
            if not refusal(error):
                raise
            if self._refused_until == -math.inf:
                logger.warning("the ends of jobs cannot be committed now: %s", error)
            self._refused_until = time.monotonic() + REFUSED_S

    def _commit(self) -> None:
        while self._done:
            batch = self._done[:FINISH_AT_ONCE]
            lost = self.queue.finish(batch)
            del self._done[: len(batch)]
            for lease in lost:
                logger.warning("lease %s was lost before its job ended; the job is another worker's", lease)
        if self._released:
            self.queue.release(self._released)
            self._released.clear()
        if self._abandoned:
            self.queue.expire(self._abandoned)
            self._abandoned.clear()
        while self._buried:
            self.queue.bury(*self._buried[0])
            del self._buried[0]

    def renew(self) -> list[str]:
        """Renew all held leases; returns those that were lost, whose jobs are other workers' now."""
        lost = self.queue.renew(list(self.held))
        for lease in lost:
            logger.warning("lease %s was lost while its job was held", lease)
        return lost
