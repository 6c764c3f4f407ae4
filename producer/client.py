"""The client of a backend service: submit a job, go on, and fetch the result when it is there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, Unpack

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from . import calls
from .collect import RECHECK_S, Collector, outcome
from .contract import keys
from .contract.errors import ResultTimeout, StokerError
from .contract.fleet.settings import Settings
from .contract.message import celery_message
from .contract.message.job import Item, Job, Result, Status
from .contract.queue.withdrawal import Whereabouts
from .contract.server.connection import block_ms, close, connect
from .contract.server.dialogue import run
from .contract.server.redis_errors import broker_errors
from .contract.server.rights import Rights
from .estimates.admission import Admission
from .estimates.queued_job import Waiting
from .outage import Outage
from .stream import AT_ONCE, Piece, Reading, entries
from .submission import SUBMIT_LUA, Deadline, arguments, build, confirm, plan

TOLD_S = 1.0
"""Longest wait for the autoscaler to fix the result of a job that was cancelled, in seconds."""


class Client:
    """Submits jobs and fetches results. Thread-safe; holds a pool of connections until closed.

    Args:
        reads: whether it looks through queues for jobs that are submitted again. By default it does, unless it has a
            Redis user of its own, which may lack the right. Such a client also leaves it to the autoscaler to take the
            jobs that it cancels out of their queues and to fix their results.

    >>> with Client() as client:
    ...     job = client.submit("smollm2", "The capital of France is", tier="interactive")
    ...     print(client.result(job, timeout=60).output["text"])
    """

    def __init__(self, settings: Settings | None = None, *, reads: bool | None = None) -> None:
        self.settings = settings or Settings.load()
        self._rights = Rights.of(self.settings, reads)
        # A submission that failed half-way must not be repeated behind the caller's back: it could
        # queue the job twice. Reading is retried below, where it is safe.
        self.redis = connect(self.settings, retry=Retry(NoBackoff(), 0))
        self._submit = self.redis.register_script(SUBMIT_LUA)
        self._idle: list[Collector] = []

    def submit(
        self,
        model: str,
        input: Item | Sequence[Item],
        *,
        tier: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tenant: str = "default",
        deadline: Deadline | None = None,
        stream: bool = False,
        idempotency_key: str | None = None,
        metadata: Mapping[str, str] | None = None,
        admission: Admission = "accept",
    ) -> str:
        """Queue one job and return its id. The tier is by default the model's fastest.

        With ``stream`` its output can be read while it is made, by :meth:`stream`. What becomes of it when its deadline
        is out of reach, ``admission`` says; see :meth:`admit`.

        Raises:
            InvalidJob, UnknownModel, UnknownTier: when no worker could serve it.
            QueueFull: when its queue is at its limit; nothing was queued.
            DeadlineUnreachable: with ``admission="refuse"``, when it would miss its deadline; nothing was queued.
            BrokerUnavailable: when Redis is away. Whether the job was queued is then unknown; with an
                ``idempotency_key`` it is safe to submit it again.
        """
        job = self.job(
            model,
            input,
            tier=tier,
            parameters=parameters,
            tenant=tenant,
            deadline=deadline,
            stream=stream,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        return self.submit_many([self.admit(job, admission)])[0]

    def admit(self, job: Job, admission: Admission, tiers: Sequence[str] | None = None) -> Job:
        """The job as :meth:`submit` would queue it now, which looks only at jobs that have a deadline.

        A deadline is out of reach when even the early end of the job's estimate is behind it. With ``accept`` the job
        is taken all the same, and expires if it is late; with ``refuse`` it is not; with ``degrade`` it goes to the
        next lower tier of its model, without a deadline, and is done late. One that was submitted before, with the
        same idempotency key, stays as it was. Each job is looked at by itself: of many, submit one after the other.

        Args:
            tiers: that it may be degraded to; by default all of its model.

        Raises:
            InvalidJob, UnknownModel, UnknownTier: when no worker could serve it.
            DeadlineUnreachable: it is to be refused; says when it could be done at the earliest.
            BrokerUnavailable: when Redis is away.
        """
        return run(self.redis, calls.admit(self.settings, job, admission, tiers))

    def job(
        self,
        model: str,
        input: Item | Sequence[Item],
        *,
        tier: str | None = None,
        deadline: Deadline | None = None,
        **fields: Any,
    ) -> Job:
        """Build a job for :meth:`submit_many`, with ``submit``'s defaults."""
        return build(self.settings, model, input, tier, deadline, fields)

    def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        """Queue many jobs in one pipelined write and return their ids, in the order of the jobs.

        All jobs are checked before any is queued. A queue takes up to 1,000 of them all or none; more, and those
        for other queues, are taken or refused in parts.

        Raises:
            QueueFull: its ``queued`` and ``refused`` are the ids of the jobs that were queued and that were not,
                each in the order of the jobs within a queue.
            InvalidJob, UnknownModel, UnknownTier: for the first job that is wrong; nothing was queued.
            BrokerUnavailable: as :meth:`submit`, for each of the jobs.
        """
        ids, pushes = plan(jobs, self.settings)
        with broker_errors(self.settings, "submitting"):
            if len(pushes) == 1:  # one round trip instead of a pipeline's two
                answers = [self._submit(*arguments(pushes[0], self.settings, self._rights))]
            else:
                with self.redis.pipeline(transaction=False) as pipe:
                    for push in pushes:
                        self._submit(*arguments(push, self.settings, self._rights), client=pipe)
                    answers = pipe.execute()
        confirm(pushes, answers)
        return ids

    def result(self, job_id: str, timeout: float | None = None) -> Result:
        """Wait for a job to end, up to ``timeout`` seconds, and return its result.

        Raises:
            ResultTimeout: it did not end in time; it goes on, and this can be called again.
            InvalidJob, JobCancelled, JobExpired, JobFailed: it ended without a result.
            BrokerUnavailable: Redis stayed away for ``outage.OUTAGE_S`` seconds.
        """
        for _, found in self.results([job_id], timeout):
            if isinstance(found, StokerError):
                raise found
            return found
        raise ResultTimeout(f"job {job_id} did not end within {timeout} s; it goes on, ask again")

    def results(
        self, job_ids: Iterable[str], timeout: float | None = None
    ) -> Iterator[tuple[str, Result | StokerError]]:
        """The results of many jobs as they end, each with its id; failures come as values.

        Ends when all have ended, or after ``timeout`` seconds with those that have.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        outage = Outage(self.settings, "waiting for a result")
        with self._lent() as collector:
            collector.add(job_ids)
            while len(collector):
                now = time.monotonic()
                found: list[tuple[str, bytes]] = []
                try:
                    found = collector.poll(RECHECK_S if deadline is None else min(deadline - now, RECHECK_S))
                    outage.end()
                except RedisError as error:
                    time.sleep(outage.ride_out(error))
                for job_id, stored in found:
                    yield job_id, outcome(stored)
                if deadline is not None and time.monotonic() >= deadline:
                    return

    def stream(self, job_id: str, after: str | None = None, timeout: float | None = None) -> Iterator[Piece]:
        """The output of a job, in pieces, while it is made; ends when the job has ended.

        Reads no further than the caller does. Ends with all of the text told, also when the job was not submitted
        with ``stream`` or its stream is gone: then the text comes in one piece. Outputs that are no texts have none.

        Args:
            after: the id of a piece, to go on behind it; also when the job has ended.
            timeout: longest wait for the next piece, in seconds.

        Raises:
            ResultTimeout: no piece came in time; the job goes on, and this can be called again.
            InvalidJob, JobCancelled, JobExpired, JobFailed: it ended without a result.
            BrokerUnavailable: Redis stayed away for ``outage.OUTAGE_S`` seconds.
        """
        reading, outage = Reading(after, timeout), Outage(self.settings, "reading a stream")
        ended: Result | StokerError | None = None
        while True:
            try:
                with self.redis.pipeline(transaction=False) as pipe:
                    wait_ms = None if ended else block_ms(self.redis, reading.wait_s)
                    pipe.xread({keys.stream(job_id): reading.last}, AT_ONCE, wait_ms)
                    pipe.get(keys.result(job_id))
                    found, stored = pipe.execute()
                outage.end()
            except RedisError as error:
                time.sleep(outage.ride_out(error))
                continue
            yield from reading.read(entries(found))
            if ended and not found:
                break
            if ended is None and celery_message.is_final(stored):
                ended = outcome(stored)  # and look once more for what was written before it
            elif not found and reading.overdue:
                raise ResultTimeout(f"job {job_id} made nothing for {timeout} s; it goes on, ask again")
        if isinstance(ended, StokerError):
            raise ended
        yield from reading.finish(ended.output)

    @contextmanager
    def _lent(self) -> Iterator[Collector]:
        """A collector whose connection outlives the call: to connect takes as long as a short job."""
        try:
            collector = self._idle.pop()
        except IndexError:
            collector = Collector(self.redis)
        try:
            yield collector
        finally:
            if len(collector):  # somebody stopped waiting
                collector.close()
            else:
                self._idle.append(collector)

    def status(self, job_id: str) -> Status:
        """Where the job is now. ``RUNNING`` is known from heartbeats, so up to a second late.

        Raises:
            BrokerUnavailable: when Redis is away.
        """
        return run(self.redis, calls.status(self.settings, job_id))

    def waiting(self, job_id: str, model: str | None = None, tier: str | None = None) -> Waiting:
        """Where the job is, and while it is queued: how many are before it, why it waits, and when it will probably
        start and end, with intervals that hold for nine of ten jobs.

        Args:
            model: of the job, if it is known; else it is looked for at all.
            tier: of the job, if it is known. Whose rights are limited cannot look into queues and must give model and
                tier: it then learns what holds for the last of the queue.

        Raises:
            UnknownModel, UnknownTier: naming what there is.
            BrokerUnavailable: when Redis is away, or does not let us look.
        """
        return run(self.redis, calls.waiting(self.settings, job_id, model, tier))

    def obstacle(self, model: str) -> str:
        """What keeps jobs of the model from being answered, and the cure; empty when a worker of it is ready.

        Raises:
            BrokerUnavailable: when Redis is away.
        """
        return run(self.redis, calls.obstacle(self.settings, model))

    def cancel(self, job_id: str, **known: Unpack[Whereabouts]) -> bool:
        """Cancel a job, queued or running. False when it had already ended.

        Args:
            known: ``model``, ``tier`` and ``tenant`` of the job, as far as they are known: fewer queues are searched.

        Raises:
            BrokerUnavailable: when Redis is away.
        """
        cancelled = bool(run(self.redis, calls.cancel(self.settings, [job_id], known, self._rights.writes)))
        if cancelled and not self._rights.writes:
            for _ in self.results([job_id], TOLD_S):
                pass
        return cancelled

    def cancel_many(self, job_ids: Sequence[str], **known: Unpack[Whereabouts]) -> None:
        """Cancel many jobs in one pipelined write; those that had ended stay as they are.

        Args:
            known: of all of the jobs; as for :meth:`cancel`.

        Raises:
            BrokerUnavailable: when Redis is away.
        """
        run(self.redis, calls.cancel(self.settings, job_ids, known, self._rights.writes))

    def forget(self, job_ids: Iterable[str]) -> None:
        """Delete the results of jobs that have ended, and with them what their idempotency keys stand for.

        Raises:
            BrokerUnavailable: when Redis is away.
        """
        run(self.redis, calls.forget(self.settings, job_ids))

    def close(self) -> None:
        """Give up the connections."""
        while self._idle:
            self._idle.pop().close()
        close(self.redis)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
