"""The pool that feeds one engine: claims come in, batches run on the device, and each job gets one result.

Celery hands tasks to its pools one by one; this pool takes whole claims (``scheduler.lease.ledger.Taker``), runs them
on the one thread that owns the device, and ends each job in the ledger. Monitors see every job as a task (``monitor``),
and stock applications get its result as of any task (``scheduler.results``).

Touches of Celery 5.7 that are not documented: ``worker.state.revoked`` and ``should_stop``.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

import redis
from billiard.exceptions import TimeLimitExceeded
from celery.concurrency.base import BasePool
from celery.worker import state

from producer.contract.celery_message import check, check_size
from producer.contract.errors import (
    EngineError,
    InvalidJob,
    JobCancelled,
    JobExpired,
    Preempted,
    StokerError,
)
from producer.contract.job import Job
from producer.contract.message_body import NotAJob
from scheduler import results
from scheduler.lease.ledger import NoTaker
from scheduler.lease.queue import Claim, Claimed
from scheduler.message import Message, named, read
from scheduler.order import preemption
from scheduler.window.window import HoldLimits

from .assignment import Assignment
from .breaker import Breaker
from .device_thread import DeviceThread
from .engines.protocol import Batch, Outcome, OutputPiece, Prefilled, Request
from .holding import Holding
from .meter import LiveMeter
from .monitor import Monitor
from .running import Running
from .streaming import Streams

logger = logging.getLogger(__name__)

EXIT_HOPELESS = 6
"""The exit code of a worker whose engine fails, and whose breaker asks for another replica."""

LATE_S = 0.25
"""Interval in seconds at which time limits are checked and events published."""


class EnginePool(BasePool):  # type: ignore[misc]  # Celery has no types
    """One engine on one thread. ``num_processes`` is what Celery shows as concurrency."""

    signal_safe = False  # stopping waits for the device

    def __init__(self, *args: Any, app: Any, **kwargs: Any) -> None:
        super().__init__(*args, app=app, **kwargs)
        assignment: Assignment = app.assignment
        self.assignment, self.engine, self.ledger = assignment, assignment.engine, assignment.ledger
        self.device = DeviceThread(self.engine, self.assignment.model, self.assignment.device)
        self.meter = LiveMeter()
        self.draining = False
        self._limits = self.assignment.settings.model(self.assignment.model).limits
        kind = self.assignment.device_type or self.assignment.device.partition(":")[0]
        self.holding = Holding(self.assignment.settings, self.assignment.model, kind)
        self._monitor = Monitor(app)
        self._streams = Streams(self.ledger.queue, self.assignment.settings.redis.result_ttl_s)
        self._hub: Any = None
        self._running: dict[str, Running] = {}
        self.breaker = Breaker()
        app.engine_pool = self

    # -- taking jobs ------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """See ``scheduler.lease.ledger.Taker``."""
        ready = self.device.ready_at is not None and not self.draining and not self.device.lost
        return self.breaker.capacity(time.monotonic(), self.ledger.count, self.engine.capacity) if ready else 0

    @property
    def slots(self) -> int:
        """See ``scheduler.lease.ledger.Taker``."""
        return self.engine.slots

    def hold(self) -> HoldLimits:
        """See ``scheduler.lease.ledger.Taker``."""
        return self.holding.hold(self.ledger.count)

    def take(self, claim: Claim) -> None:
        """See ``scheduler.lease.ledger.Taker``."""
        self.holding.see(claim, self.ledger.count)
        if not claim.jobs:
            return
        messages = [(job, message) for job in claim.jobs if (message := self._read(job)) is not None]
        cancelled = self._cancelled([message.id for _, message in messages], claim)
        self.meter.begin()
        for job, message in messages:
            try:
                self._take(job, message, message.id in cancelled)
            except Exception as error:
                logger.exception("job %s could not be taken", message.id)
                self._forget(job.lease)
                self.ledger.bury(job.lease, f"{type(error).__name__}: {error}"[:500])
        if self.slots and any(job.queue not in self.ledger.queue.preemptible for job in claim.jobs):
            self._preempt()

    def _preempt(self) -> None:
        """Preempt the youngest preemptible jobs until all others have a slot."""
        over = sum(running.inputs for running in self._running.values()) - self.slots
        held = [(lease, self._running[lease].inputs) for lease in self.ledger.preemptible if lease in self._running]
        leases = preemption.victims(held, over)
        for lease in leases:
            logger.info("job %s is preempted, and goes back to the head of its queue", self._running[lease].id)
            self._give_up(lease)
        self.ledger.release(reversed(leases))

    def _read(self, job: Claimed) -> Message | None:
        try:
            message = read(job.message)
        except NotAJob as error:
            own, *followers = named(job.message) or [""]
            # Its own id is answered by the script, except in a message of protocol 1.
            self.ledger.bury(job.lease, str(error), [each for each in (own, *followers) if each])
            if own:
                self._monitor.refused(own, error)
            return None
        self.ledger.name(job.lease, message.id)
        return message

    def _cancelled(self, ids: list[str], claim: Claim) -> set[str]:
        cancelled = {job_id for job_id in ids if job_id in state.revoked}
        if claim.any_cancelled:
            try:
                cancelled.update(self.ledger.queue.cancelled(ids))
            except redis.RedisError:
                # Otherwise they would be held and renewed for ever, without being run.
                self.ledger.release([job.lease for job in claim.jobs])
                raise
        return cancelled

    def _take(self, claimed: Claimed, message: Message, cancelled: bool) -> None:
        now = time.monotonic()
        running = Running(claimed.lease, claimed.queue, message, _waited(message, claimed), self._terminate)
        self._running[running.lease] = running
        self._monitor.taken(running)
        if cancelled:
            self._revoke(running, "revoked")
            return
        try:
            job = running.job = Job.parse(message.fields, queue=claimed.queue)
            # Stoker's client checks before it queues; stock producers do not.
            check(job, self.assignment.settings)
            check_size(claimed.message, job, self.assignment.settings)
        except InvalidJob as error:
            self._fail(running, error)
            return
        if deadline := message.expires or job.deadline:
            running.deadline = now + (deadline - datetime.now(UTC)).total_seconds()
            if running.deadline <= now:
                self._revoke(running, "expired")
                return
        # The message may name a shorter limit, not a longer one: the fleet file bounds how long a device may be held.
        running.time_limit_s = min(message.time_limit_s or self._limits.time_limit_s, self._limits.time_limit_s)
        running.overdue_at = now + running.time_limit_s
        self.engine.submit(Request(running.lease, job.items, dict(job.parameters), running.deadline, job.stream))

    # -- ending them ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Process the device's reports: output of streaming jobs, batches, and outcomes."""
        outcomes: list[Outcome] = []
        for report in self.device.reports():
            match report:
                case Outcome():
                    outcomes.append(report)
                case Batch():
                    self.holding.learn(report)
                case Prefilled():
                    self._look_again(self.ledger.prefilled(report.id, report.stall_s))
                case OutputPiece() if (running := self._running.get(report.id)) is not None:
                    self._stream(running, report)
        ended = [(running, each) for each in outcomes if (running := self._forget(each.id)) is not None]
        ran = [outcome.batch_size for _, outcome in ended if outcome.error is None]  # failures are no throughput
        self.meter.done(ran, idle=not self._running)
        for running, outcome in ended:
            try:
                self._end(running, outcome)
            except redis.RedisError:
                raise
            except Exception as error:
                self._fail(running, _unusable(running, error))
        self._judge([outcome.error for _, outcome in ended])
        self._streams.flush()  # before the leases go with the results
        self.ledger.flush()  # before the events: clients wait for results
        if self._monitor.full:
            self._monitor.flush()

    def _judge(self, errors: list[StokerError | None]) -> None:
        """Tell the breaker of outcomes; end the worker when another replica should take its place."""
        failed = [error for error in errors if isinstance(error, EngineError)]
        now, before = time.monotonic(), self.breaker.why
        self.breaker.ended(now, errors.count(None), len(failed), str(failed[-1]) if failed else "")
        if self.breaker.why and not before:
            logger.error("the breaker opens, and the replica gets one job at a time: %s", self.breaker.why)
        elif before and not self.breaker.why:
            logger.info("the breaker closes: the engine serves again")
        self._look_again(self.breaker.wait_s(now))
        if self.breaker.hopeless and not state.should_stop:
            logger.critical("the engine does not recover, and another replica has to take its place: %s", before)
            state.should_stop = EXIT_HOPELESS

    def _stream(self, running: Running, piece: OutputPiece) -> None:
        try:
            self._streams.add(running.id, piece)
        except TypeError as error:
            self._give_up(running.lease)
            self._fail(running, _unusable(running, error))

    def _look_again(self, seconds: float) -> None:
        """Have the transport check for room again after some seconds."""
        if seconds > 0:
            self._hub.call_later(seconds, lambda: None)  # the transport checks whenever the loop wakes

    def _end(self, running: Running, outcome: Outcome) -> None:
        match outcome.error:
            case None:
                self._succeed(running, outcome)
            case Preempted():
                self.ledger.release([running.lease])
            case JobExpired():
                self._revoke(running, "expired")
            case JobCancelled():
                self._revoke(running, "terminated")
            case EngineError() as error if self._defer(running):
                self._monitor.retried(running, error)
            case error:
                self._fail(running, error)

    def _succeed(self, running: Running, outcome: Outcome) -> None:
        assert running.job is not None
        assert outcome.outputs is not None
        value = {
            "output": outcome.outputs if isinstance(running.job.input, list) else outcome.outputs[0],
            "usage": outcome.usage,
            "timing": {
                "waited_s": running.waited_s,
                "ran_s": outcome.ran_s,
                "batch_size": outcome.batch_size,
                "worker": self.assignment.name,
            },
        }
        try:
            result = results.succeeded(running.id, value)
        except ValueError as error:
            self._fail(running, EngineError(f"the engine's answer is no JSON: {error}"))
            return
        self._store(running, result)
        self._monitor.succeeded(running, outcome)

    def _fail(self, running: Running, error: Exception) -> None:
        self._store(running, results.failed(running.id, error))
        self._monitor.failed(running, error)

    def _revoke(self, running: Running, reason: str) -> None:
        self._store(running, results.revoked(running.id, reason))
        self._monitor.revoked(running, terminated=reason == "terminated", expired=reason == "expired")

    def _store(self, running: Running, result: bytes) -> None:
        self._forget(running.lease)
        self.ledger.done(running.lease, result if running.message.wants_result else b"")

    def _defer(self, running: Running) -> bool:
        """Defer a job to be tried again later; False when its retries are used up."""
        try:
            return self.ledger.defer(running.lease)
        except redis.RedisError as error:
            logger.warning("job %s cannot be deferred now (%s): it goes back to its queue", running.id, error)
            self.ledger.release([running.lease])
            return True

    def _forget(self, lease: str) -> Running | None:
        running = self._running.pop(lease, None)
        if running is not None:
            self._monitor.left(running)
            self._streams.end(lease)
        return running

    def _give_up(self, lease: str) -> None:
        """Cancel a request and drop its outcome."""
        if self._forget(lease) is not None:
            self.engine.cancel(lease)
            self.meter.done([], idle=not self._running)

    def _terminate(self, running: Running) -> None:
        """End a running job that was cancelled."""
        if running.lease in self._running:
            self._give_up(running.lease)
            self._revoke(running, "terminated")

    def _end_overdue(self) -> None:
        """End the jobs whose time limit or deadline has passed, also if the engine has not noticed.

        One pass over the running jobs rather than a timer for each: the loop keeps a cancelled timer, and with it the
        job's inputs, until it would have fired.
        """
        now = time.monotonic()
        for running in list(self._running.values()):
            if running.deadline is not None and running.deadline <= now:
                self._give_up(running.lease)
                self._revoke(running, "expired")
            elif running.overdue_at <= now:
                self._give_up(running.lease)
                self._fail(running, TimeLimitExceeded(running.time_limit_s))

    def lose(self, leases: list[str]) -> None:
        """Give up jobs whose leases were lost. Thread-safe: the thread that renews leases calls it."""
        for lease in leases:
            self.engine.cancel(lease)
        self.device.tell([Outcome(lease, error=Preempted("its lease was lost")) for lease in leases])

    @property
    def running_jobs(self) -> list[str]:
        """Ids of the jobs that the engine holds."""
        return [running.id for running in list(self._running.values())]

    # -- beginning and ending ---------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the device thread, which loads the model while Celery connects."""
        self.ledger.taker = self
        self.device.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Use the event loop that Celery passes, once and after every reconnect."""
        self._hub = loop
        self.device.watch(loop, self._settle)
        loop.call_repeatedly(LATE_S, self._end_overdue)
        loop.call_repeatedly(LATE_S, self._monitor.flush)
        if threading.current_thread() is threading.main_thread():
            # Python resumes an interrupted poll: without this a SIGTERM is noticed only at the next event, and another
            # batch may start before that.
            signal.set_wakeup_fd(self.device.ring_fd, warn_on_full_buffer=False)

    def on_stop(self) -> None:
        """Drain: finish the running jobs, give back those that have not begun, then free the device.

        In this order: no new jobs are taken (Celery has cancelled the consumers, and the capacity is 0); jobs that have
        not begun go back to their queues; results are written as jobs end; jobs that do not end in time go back under
        their leases; then the engine is closed. A second SIGTERM ends the wait. A worker that ends because of an error
        that nothing handles does not wait: it abandons its jobs, as when its engine is lost.
        """
        self.draining = True
        if isinstance(sys.exception(), Exception):  # Celery stops its worker while it handles the error
            self.device.lost = True
        self.engine.withdraw()
        deadline = time.monotonic() + self.assignment.settings.scaling.drain_s
        hurry = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: hurry.set())
        while self._running and time.monotonic() < deadline and not hurry.is_set() and not self.device.lost:
            try:
                # Celery's loop has ended; running its hub here keeps sockets and timers alive, so that results are
                # written as jobs end, and events and remote control work to the end.
                self._hub.run_once()
            except (redis.RedisError, OSError):
                hurry.wait(0.1)  # the ledger keeps results and writes them when Redis is back
            except Exception:
                logger.critical("the jobs cannot be finished", exc_info=True)
                self.device.lost = True
        self._leave()

    def on_terminate(self) -> None:
        """Cold shutdown: give all jobs back now."""
        self.draining = True
        self._leave()

    def _leave(self) -> None:
        left = list(self._running)
        if left:
            logger.warning("%s %d unfinished jobs", "abandoning" if self.device.lost else "giving back", len(left))
        for lease in left:
            self._give_up(lease)
        if self.device.lost:
            # Abandoned rather than given back: one of them may be the cause, so each counts a loss.
            self.ledger.abandon(left)
        self.ledger.release(self.ledger.held)
        self.ledger.taker = NoTaker()
        with contextlib.suppress(redis.RedisError):  # the leases then expire
            self.ledger.flush(urgent=True)  # released leases are no longer renewed
        self._monitor.flush()
        self.device.stop()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing to do: ``Running.terminate`` knows the job."""

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": "workers.pool:EnginePool",
            "max-concurrency": self.limit,
            "model": self.assignment.model,
            "device": self.assignment.device,
        }


def _unusable(running: Running, error: Exception) -> EngineError:
    logger.error("job %s: the engine's answer cannot be used", running.id, exc_info=error)
    return EngineError("the engine gave an answer that cannot be used; the log of its worker says why")


def _waited(message: Message, claimed: Claimed) -> float | None:
    return None if message.submitted_at is None else max(0.0, round(claimed.now - message.submitted_at, 6))
