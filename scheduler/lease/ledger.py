"""What one worker holds: leases, and what has ended but is not yet committed.

Results and leases meet here, so that a whole batch of them is one round trip: a job that ended is noted with its
result, and everything noted is written before the worker sleeps or asks for more (``Poller.on_poll_start``).
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

from redis.exceptions import ResponseError

from producer.contract.redis_errors import refusal

from ..order import preemption
from ..order.preemption import Prefill, Room
from ..window.window import HoldLimits
from .queue import NO_HOLD, Claim, Claimed, Queue

logger = logging.getLogger(__name__)

REFUSED_S = 0.5
"""How long to leave a Redis alone that refused to serve, in seconds."""

FINISH_AT_ONCE = 500
"""Most jobs ended in one step, so that Redis is never blocked for long."""


class Taker(Protocol):
    """Whoever runs the jobs that are claimed."""

    @property
    def capacity(self) -> int:
        """How many jobs it may hold now; 0 before it is ready, and when it drains."""

    @property
    def slots(self) -> int:
        """See ``scheduler.order.preemption.room``."""

    def hold(self) -> HoldLimits:
        """How long jobs may now wait for a fuller batch."""

    def take(self, claim: Claim) -> None:
        """Take what was claimed, if anything. Each job is in the ledger, and has to be ended there.

        Raises:
            RedisError: then it has ended all of them.
        """


class Nobody:
    """Takes nothing: there is no engine yet."""

    capacity = slots = 0

    def hold(self) -> HoldLimits:
        """Nothing is held back."""
        return NO_HOLD

    def take(self, claim: Claim) -> None:
        """Never called: there is no room."""
        raise AssertionError(claim)


class Ledger:
    """The book of one worker. Renewed from another thread; everything else is the event loop's."""

    def __init__(self, queue: Queue, worker: str = "worker") -> None:
        self.queue = queue
        self.taker: Taker = Nobody()
        self._owner = f"{worker}.{uuid.uuid4().hex[:8]}"  # new for every process, whatever its name
        self._claims = count()
        self._lock = threading.Lock()
        self._held: dict[str, str] = {}  # lease -> job id
        self._alone = ""  # lease of a suspect, which shares the worker with nobody
        self._waiters: set[str] = set()  # leases of jobs of preemptible tiers, where there are slots
        self._preemptible: dict[str, None] = {}  # of these, those that may be preempted, oldest first
        self._others_at = -math.inf  # when a job of a tier that is not preemptible was taken, on the monotonic clock
        self._unread: set[str] = set()  # leases of jobs of preemptible tiers whose prompts are still to be read
        self._prefill = Prefill()
        self._refused_until = -math.inf  # by a Redis that cannot serve; infinitely long ago, since it has served again
        # Ended, not yet written:
        self._done: list[tuple[str, str, bytes]] = []
        self._released: list[str] = []
        self._abandoned: list[str] = []
        self._buried: list[tuple[str, str]] = []

    def __json__(self) -> str:
        """What 'inspect stats' says of it, which shows everybody the transport's options."""
        return f"ledger of {self._owner}"

    @property
    def held(self) -> dict[str, str]:
        """Job ids by lease, of the jobs that are not ended."""
        with self._lock:
            return dict(self._held)

    @property
    def count(self) -> int:
        """How many jobs are held."""
        return len(self._held)

    @property
    def room(self) -> Room:
        """How many more jobs the worker may take."""
        if self._alone:
            return Room.of(0)
        now, beside_others = time.monotonic(), self.count > len(self._waiters)
        prefill = Prefill(math.inf) if self._unread else self._prefill
        return preemption.room(
            self.taker.capacity,
            self.taker.slots,
            self.count,
            len(self._preemptible),
            others_s=0.0 if beside_others else now - self._others_at,
            pause_s=prefill.next_at(beside_others) - now,
        )

    @property
    def open_queues(self) -> list[str]:
        """The queues of which it may take jobs now."""
        room = self.room
        if room.of_tier(preemptible=True) > 0 and room.of_tier(preemptible=False) > 0:
            return self.queue.queues
        return [name for name in self.queue.queues if room.of_tier(name in self.queue.preemptible) > 0]

    @property
    def preemptible(self) -> list[str]:
        """Leases of the jobs that may be preempted, the oldest first."""
        return list(self._preemptible)

    def claim_command(self) -> list[Any]:
        """The command that fills the room there is."""
        owner = f"{self._owner}.{next(self._claims)}"
        return self.queue.claim_command(self.room, owner, idle=not self._held, hold=self.taker.hold())

    def take(self, claimed: Iterable[Claimed], overdue: bool = False) -> None:
        """Enter what was claimed; the ids of the jobs are not known yet. ``overdue`` is the claim's."""
        for job in claimed:
            with self._lock:
                self._held[job.lease] = ""
            if job.losses >= self.queue.suspect_at:
                self._alone = job.lease
            if job.queue not in self.queue.preemptible:
                self._others_at = time.monotonic()
            elif self.taker.slots:
                self._waiters.add(job.lease)
                self._unread.add(job.lease)
                if not (overdue or job.dated or job.lease == self._alone):
                    self._preemptible[job.lease] = None

    def prefilled(self, lease: str, stall_s: float) -> float:
        """Note that a job's prompt has been read, for which others had to wait for ``stall_s`` seconds. Returns in how
        many seconds another of a preemptible tier may join them; 0 if the job is of no such tier."""
        if lease not in self._unread:
            return 0.0
        self._unread.discard(lease)
        now = time.monotonic()
        self._prefill = Prefill(now, stall_s)
        return self._prefill.next_at(beside_others=True) - now

    def name(self, lease: str, job_id: str) -> None:
        """Note the id of a job that is held, under which its result is stored."""
        with self._lock:
            self._held[lease] = job_id

    def done(self, lease: str, result: bytes = b"") -> None:
        """End a job, with its result if it has one."""
        job_id = self._drop(lease)
        if job_id is not None:
            self._done.append((lease, job_id, result))

    def release(self, leases: Iterable[str]) -> None:
        """Give jobs back unharmed, to the head of their queues."""
        for lease in leases:
            if self._drop(lease) is not None:
                self._released.append(lease)

    def abandon(self, leases: Iterable[str]) -> None:
        """Let the leases of jobs run out now, as if their worker had died: each counts a loss."""
        for lease in leases:
            if self._drop(lease) is not None:
                self._abandoned.append(lease)

    def bury(self, lease: str, reason: str) -> None:
        """Send a job to the dead letters."""
        logger.error("dead letter %s: %s", lease, reason)
        self._drop(lease)
        self._buried.append((lease, reason))

    def defer(self, lease: str) -> bool:
        """Put a job aside to be tried again; False when it was tried often enough. Written at once."""
        retry = self.queue.defer(lease)
        if retry:
            self._drop(lease)
            logger.warning("job %s is put aside; retry %d follows", lease, retry)
        return retry != 0

    def _drop(self, lease: str) -> str | None:
        if lease == self._alone:
            self._alone = ""
        self._preemptible.pop(lease, None)
        self._waiters.discard(lease)
        self._unread.discard(lease)
        with self._lock:
            return self._held.pop(lease, None)

    def flush(self, urgent: bool = False) -> None:
        """Write all that was ended. What a broken connection leaves, or a Redis that cannot serve now does not take, is
        kept, and written by a later call.

        Args:
            urgent: to be tried even if Redis has just refused.
        """
        if time.monotonic() < self._refused_until and not urgent:
            return
        try:
            self._write()
            self._refused_until = -math.inf
        except ResponseError as error:
            if not refusal(error):
                raise
            if self._refused_until == -math.inf:
                logger.warning("what has ended is not written now: %s", error)
            self._refused_until = time.monotonic() + REFUSED_S

    def _write(self) -> None:
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
        """Prolong every lease held; returns those that were lost: their jobs are another worker's now."""
        lost = self.queue.renew(list(self.held))
        for lease in lost:
            logger.warning("lease %s was lost while its job was held", lease)
        return lost
