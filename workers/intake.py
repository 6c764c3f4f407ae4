"""The intake of claimed jobs: each message is read and checked, then submitted to the engine or ended at once.

A touch of Celery 5.7 that is not documented: ``worker.state.revoked``.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import redis
from celery.worker import state

from producer.contract.errors import InvalidJob
from producer.contract.message.celery_message import check, check_size
from producer.contract.message.job import Job
from producer.contract.message.message_body import NotAJob
from scheduler.lease.queue import Claim, Claimed
from scheduler.message import Message, named, read
from scheduler.order import preemption

from .assignment import Assignment
from .engines.protocol import Request
from .meter import LiveMeter
from .monitor import Monitor
from .running import Running
from .settlement import Settlement

logger = logging.getLogger(__name__)


class Intake:
    """Takes the jobs of a claim into the engine. It belongs to the event loop."""

    def __init__(self, assignment: Assignment, settlement: Settlement, meter: LiveMeter, monitor: Monitor) -> None:
        self._settings, self._engine, self._ledger = assignment.settings, assignment.engine, assignment.ledger
        self._limits = assignment.settings.model(assignment.model).limits
        self._settlement = settlement
        self._meter = meter
        self._monitor = monitor

    def take(self, claim: Claim) -> None:
        """Take the jobs of a claim; see ``scheduler.lease.taker.Taker``."""
        messages = [(job, message) for job in claim.jobs if (message := self._read(job)) is not None]
        cancelled = self._cancelled([message.id for _, message in messages], claim)
        self._meter.begin()
        for job, message in messages:
            try:
                self._take(job, message, message.id in cancelled)
            except Exception as error:
                logger.exception("job %s could not be taken", message.id)
                self._settlement.forget(job.lease)
                self._ledger.bury(job.lease, f"{type(error).__name__}: {error}"[:500])
        if self._engine.slots and any(job.queue not in self._ledger.queue.preemptible for job in claim.jobs):
            self._preempt()

    def _read(self, job: Claimed) -> Message | None:
        try:
            message = read(job.message)
        except NotAJob as error:
            own, *followers = named(job.message) or [""]
            # Its own id is answered by the script, except in a message of protocol 1.
            self._ledger.bury(job.lease, str(error), [each for each in (own, *followers) if each])
            if own:
                self._monitor.refused(own, error)
            return None
        self._ledger.name(job.lease, message.id)
        return message

    def _cancelled(self, ids: list[str], claim: Claim) -> set[str]:
        cancelled = {job_id for job_id in ids if job_id in state.revoked}
        if claim.any_cancelled:
            try:
                cancelled.update(self._ledger.queue.cancelled(ids))
            except redis.RedisError:
                # Otherwise their leases would be renewed for ever and the jobs never run.
                self._ledger.release([job.lease for job in claim.jobs])
                raise
        return cancelled

    def _take(self, claimed: Claimed, message: Message, cancelled: bool) -> None:
        now = time.monotonic()
        settlement = self._settlement
        running = Running(claimed.lease, claimed.queue, message, _waited(message, claimed), settlement.terminate)
        settlement.begin(running)
        if cancelled:
            settlement.revoke(running, "revoked")
            return
        try:
            job = running.job = Job.parse(message.fields, queue=claimed.queue)
            # Stoker's client checks before it queues; stock producers do not.
            check(job, self._settings)
            check_size(claimed.message, job, self._settings)
        except InvalidJob as error:
            settlement.fail(running, error)
            return
        if deadline := message.expires or job.ends_at:
            running.deadline = now + (deadline - datetime.now(UTC)).total_seconds()
            if running.deadline <= now:
                settlement.revoke(running, "expired")
                return
        # The message may name a shorter limit, not a longer one: the fleet file bounds how long a device may be held.
        running.time_limit_s = min(message.time_limit_s or self._limits.time_limit_s, self._limits.time_limit_s)
        running.overdue_at = now + running.time_limit_s
        self._engine.submit(Request(running.lease, job.items, dict(job.parameters), running.deadline, job.stream))

    def _preempt(self) -> None:
        """Preempt the youngest preemptible jobs until all others have a slot."""
        running = self._settlement.running
        over = sum(each.inputs for each in running.values()) - self._engine.slots
        held = [(lease, running[lease].inputs) for lease in self._ledger.preemptible if lease in running]
        leases = preemption.victims(held, over)
        for lease in leases:
            logger.info("job %s is preempted, and goes back to the head of its queue", running[lease].id)
            self._settlement.give_up(lease)
        self._ledger.release(reversed(leases))


def _waited(message: Message, claimed: Claimed) -> float | None:
    return None if message.submitted_at is None else max(0.0, round(claimed.now - message.submitted_at, 6))
