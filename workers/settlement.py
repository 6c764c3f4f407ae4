"""The settlement of running jobs: each ends once in the ledger, with its result, its event and the end of its stream.

Results are those that a stock Celery worker would store (``scheduler.results``). All of it belongs to the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import redis
from billiard.exceptions import TimeLimitExceeded

from producer.contract.errors import EngineError, JobCancelled, JobExpired, Preempted, StokerError
from scheduler import results

from .assignment import Assignment
from .engines.protocol import Outcome, OutputPiece
from .meter import LiveMeter
from .monitor import Monitor
from .running import Running
from .streaming import Streams

logger = logging.getLogger(__name__)

NOTHING: Mapping[str, int] = MappingProxyType({})
STOP_S = 1.0
"""Seconds in which an engine should give up a request, telling what it has used."""


class Settlement:
    """The jobs that the engine holds, until each is settled or given up."""

    def __init__(self, assignment: Assignment, meter: LiveMeter, monitor: Monitor) -> None:
        self.running: dict[str, Running] = {}
        """The jobs by lease, the oldest first."""
        self._engine, self._ledger, self._worker = assignment.engine, assignment.ledger, assignment.name
        self._meter = meter
        self._monitor = monitor
        self._streams = Streams(assignment.ledger.queue, assignment.settings.redis.result_ttl_s)

    def begin(self, running: Running) -> None:
        """Add a job that was claimed."""
        self.running[running.lease] = running
        self._monitor.taken(running)

    def stream(self, piece: OutputPiece) -> None:
        """Add output of a streaming job; without effect when the job no longer runs."""
        running = self.running.get(piece.id)
        if running is None:
            return
        try:
            self._streams.add(running.id, piece)
        except TypeError as error:
            self.give_up(running.lease)
            self.fail(running, _unusable(running, error))

    def settle(self, outcomes: Sequence[Outcome]) -> list[tuple[str, StokerError | None]]:
        """Settle the jobs that still run by the outcomes of their requests; returns their tenants and errors.

        Raises:
            RedisError: the connection broke.
        """
        ended = [(running, each) for each in outcomes if (running := self.forget(each.id)) is not None]
        ran = [outcome.batch_size for _, outcome in ended if outcome.error is None]  # failures are no throughput
        self._meter.done(ran, idle=not self.running)
        for running, outcome in ended:
            try:
                self._end(running, outcome)
            except redis.RedisError:
                raise
            except Exception as error:
                self.fail(running, _unusable(running, error))
        return [(running.tenant, outcome.error) for running, outcome in ended]

    def commit(self) -> None:
        """Write streams and results, and send events when there are enough of them.

        Raises:
            RedisError: see ``Ledger.flush``.
        """
        self._streams.flush()  # before the leases go with the results
        self._ledger.flush()  # before the events: clients wait for results
        if self._monitor.full:
            self._monitor.flush()

    def end_overdue(self) -> None:
        """Stop the jobs whose time limit or deadline has passed, and end those that the engine does not give up.

        One pass over the running jobs rather than a timer for each: the loop keeps a cancelled timer, and with it the
        job's inputs, until it would have fired.
        """
        now = time.monotonic()
        for running in list(self.running.values()):
            if running.stopped is not None:
                if running.overdue_at <= now:
                    self.give_up(running.lease)
                    self._end_stopped(running, running.stopped)
            elif running.deadline is not None and running.deadline <= now:
                self._stop(running, "expired")
            elif running.overdue_at <= now:
                self._stop(running, TimeLimitExceeded(running.time_limit_s))

    def terminate(self, running: Running) -> None:
        """End a running job that was cancelled."""
        if running.lease in self.running and running.stopped is None:
            self._stop(running, "terminated")

    def _stop(self, running: Running, reason: Exception | str) -> None:
        """Have the engine give up a job, which ends with its outcome, so that its tenant pays for what was made."""
        running.stopped, running.overdue_at = reason, time.monotonic() + STOP_S
        self._engine.cancel(running.lease)

    def _end_stopped(self, running: Running, reason: Exception | str, usage: Mapping[str, int] = NOTHING) -> None:
        if isinstance(reason, Exception):
            self.fail(running, reason, usage)
        else:
            self.revoke(running, reason, usage)

    def fail(self, running: Running, error: Exception, usage: Mapping[str, int] = NOTHING) -> None:
        """End a job with an error."""
        self._store(running, results.failed(running.id, error, usage))
        self._monitor.failed(running, error)

    def revoke(self, running: Running, reason: str, usage: Mapping[str, int] = NOTHING) -> None:
        """End a job that was cancelled (``revoked``, or ``terminated`` while it ran) or has ``expired``."""
        self._store(running, results.revoked(running.id, reason, usage))
        self._monitor.revoked(running, terminated=reason == "terminated", expired=reason == "expired")

    def give_up(self, lease: str) -> None:
        """Cancel a request and drop its outcome."""
        if self.forget(lease) is not None:
            self._engine.cancel(lease)
            self._meter.done([], idle=not self.running)

    def forget(self, lease: str) -> Running | None:
        """Remove a job from the running ones; returns None if it was none of them."""
        running = self.running.pop(lease, None)
        if running is not None:
            self._monitor.left(running)
            self._streams.end(lease)
        return running

    def _end(self, running: Running, outcome: Outcome) -> None:
        if running.stopped is not None and outcome.error is not None:
            self._end_stopped(running, running.stopped, outcome.usage)
            return
        match outcome.error:
            case None:
                self._succeed(running, outcome)
            case Preempted():
                self._ledger.release([running.lease])
            case JobExpired():
                self.revoke(running, "expired", outcome.usage)
            case JobCancelled():
                self.revoke(running, "terminated", outcome.usage)
            case EngineError() as error if self._defer(running):
                self._monitor.retried(running, error)
            case error:
                self.fail(running, error, outcome.usage)

    def _succeed(self, running: Running, outcome: Outcome) -> None:
        assert running.job is not None
        assert outcome.outputs is not None
        value = {
            "output": outcome.outputs if running.job.has_list else outcome.outputs[0],
            "usage": outcome.usage,
            "timing": {
                "waited_s": running.waited_s,
                "ran_s": outcome.ran_s,
                "batch_size": outcome.batch_size,
                "worker": self._worker,
            },
        }
        try:
            result = results.succeeded(running.id, value)
        except ValueError as error:
            self.fail(running, EngineError(f"the engine's answer is no JSON: {error}"))
            return
        self._store(running, result)
        self._monitor.succeeded(running, outcome)

    def _store(self, running: Running, result: bytes) -> None:
        self.forget(running.lease)
        self._ledger.done(running.lease, result if running.message.wants_result else b"")

    def _defer(self, running: Running) -> bool:
        """Defer a job to be tried again later; False when its retries are used up."""
        try:
            return self._ledger.defer(running.lease)
        except redis.RedisError as error:
            logger.warning("job %s cannot be deferred now (%s): it goes back to its queue", running.id, error)
            self._ledger.release([running.lease])
            return True


def _unusable(running: Running, error: Exception) -> EngineError:
    logger.error("job %s: the engine's answer cannot be used", running.id, exc_info=error)
    return EngineError("the engine gave an answer that cannot be used; the log of its worker says why")
