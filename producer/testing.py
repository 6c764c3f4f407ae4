"""A fake fleet for the tests of an application: in process, without Redis, answering at once.

Its clients are a :class:`~producer.client.Client` and an :class:`~producer.async_client.AsyncClient`: jobs are checked,
refused, cancelled and answered with the same types and errors. ``docs/testing.md`` shows how to use it;
``tests/integration/test_testing_kit.py`` runs the same scenario on the fake and on a real fleet.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Unpack

from .async_client import AsyncClient
from .client import Client
from .contract.errors import (
    BrokerUnavailable,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    QueueFull,
    QuotaExceeded,
    ResultTimeout,
    StokerError,
)
from .contract.fleet.fleet_schema import Model
from .contract.fleet.settings import Settings
from .contract.fleet.tenants import most_queued
from .contract.message import celery_message
from .contract.message.job import Item, Job, Result, Status
from .contract.queue.withdrawal import Whereabouts
from .estimates.admission import Admission, admit, concerns
from .estimates.queued_job import Waiting
from .stream import Piece, Reading

Answer = Callable[[Item], Any]
"""The output for one input. What it raises becomes the job's failure."""


@dataclass(slots=True)
class SubmittedJob:
    """A job that the fake fleet was given, and its end: None while it is queued."""

    id: str
    job: Job
    end: Result | StokerError | None = None


class FakeFleet:
    """Models that answer with a function, for the tests of an application.

    >>> fleet = FakeFleet({"smollm2": lambda text: {"text": text.upper()}})
    >>> with fleet.client() as client:
    ...     client.result(client.submit("smollm2", "paris")).output
    {'text': 'PARIS'}

    Args:
        answers: by model, the output for one input.
        settings: of the fleet, for its tiers and limits; by default a fleet of these models with default settings.

    Attributes:
        jobs: every job that was submitted, by id, in order.
    """

    def __init__(self, answers: Mapping[str, Answer], settings: Settings | None = None) -> None:
        self.answers = dict(answers)
        self.settings = settings or Settings(models={name: Model(engine="echo") for name in answers})
        self.jobs: dict[str, SubmittedJob] = {}
        self._held = self._away = False

    def client(self) -> Client:
        """A client of this fleet."""
        return _FakeClient(self)

    def async_client(self) -> AsyncClient:
        """A client of this fleet for asyncio."""
        return _FakeAsyncClient(self)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep jobs queued inside the block, as when no worker is up; they are answered when it ends."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            for submitted in self.jobs.values():
                self._run(submitted)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Let every call inside the block raise ``BrokerUnavailable``, as when Redis is away."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def submit(self, jobs: Iterable[Job]) -> list[str]:
        """Queue jobs and answer them, unless the fleet is held.

        Raises:
            InvalidJob, UnknownModel, UnknownTier, QueueFull: as of a real fleet; nothing was queued.
        """
        self.reach()
        coming = [SubmittedJob(celery_message.write(job, self.settings)[0], job) for job in jobs]
        self._check_room(coming)
        for submitted in coming:
            self._run(self.jobs.setdefault(submitted.id, submitted))
        return [submitted.id for submitted in coming]

    def end(self, job_id: str) -> Result | StokerError | None:
        """The end of a job; None while it is queued, and for an id that was never submitted."""
        self.reach()
        submitted = self.jobs.get(job_id)
        if submitted is not None:
            self._run(submitted)
        return submitted.end if submitted is not None else None

    def cancel(self, job_id: str) -> bool:
        """Cancel a job; False when it had ended."""
        if self.end(job_id) is not None:
            return False
        if job_id in self.jobs:
            self.jobs[job_id].end = JobCancelled(f"job {job_id} was cancelled", "TaskRevokedError")
        return True

    def waiting(self, job_id: str) -> Waiting:
        """Where a job is, without an estimate: a fake fleet measures nothing."""
        status = status_of(self.end(job_id))
        if status is not Status.QUEUED or job_id not in self.jobs:
            return Waiting(status)
        job = self.jobs[job_id].job
        queue = [each.id for each in self._queued(job.model, job.tier)]
        return Waiting(status, job.model, job.tier, queue.index(job_id))

    def reach(self) -> None:
        """Pretend to ask Redis.

        Raises:
            BrokerUnavailable: inside :meth:`outage`.
        """
        if self._away:
            raise BrokerUnavailable("the fake fleet's Redis does not answer: the test said so")

    def _queued(self, model: str, tier: str) -> list[SubmittedJob]:
        return [
            each for each in self.jobs.values() if each.end is None and (each.job.model, each.job.tier) == (model, tier)
        ]

    def _check_room(self, coming: Sequence[SubmittedJob]) -> None:
        for model, tier in {(each.job.model, each.job.tier) for each in coming}:
            new = [each for each in coming if (each.job.model, each.job.tier) == (model, tier)]
            most, queued = self.settings.model(model).limits.max_queued, len(self._queued(model, tier))
            if self._held and queued + len(new) > most:
                text = f"queue {model}.{tier} holds {queued} jobs; models.{model}.limits.max_queued allows {most}"
                raise QueueFull(text, refused=tuple(each.id for each in new))
            for tenant in {each.job.tenant for each in new}:
                self._check_share(model, tier, tenant, new)

    def _check_share(self, model: str, tier: str, tenant: str, coming: Sequence[SubmittedJob]) -> None:
        queued = self._queued(model, tier)
        own = sum(each.job.tenant == tenant for each in queued)
        new = [each.id for each in coming if each.job.tenant == tenant]
        account, limit = self.settings.tenant(tenant), self.settings.model(model).limits.max_queued
        allowed = most_queued(account, limit, len(queued) - own)
        if self._held and own + len(new) > allowed:
            text = f"tenant {tenant!r} has {own} jobs in queue {model}.{tier} of {allowed} allowed"
            raise QuotaExceeded(text, refused=tuple(new))

    def _run(self, submitted: SubmittedJob) -> None:
        job, now = submitted.job, datetime.now(UTC)
        if submitted.end is None and job.ends_at is not None and job.ends_at <= now:
            submitted.end = JobExpired(
                f"job {submitted.id}: its deadline passed before it finished", "TaskRevokedError"
            )
        if submitted.end is not None or self._held:
            return
        try:
            outputs = [self.answers[job.model](item) for item in job.items]
        except InvalidJob as error:
            submitted.end = error
        except Exception as error:
            kind = type(error).__name__
            submitted.end = JobFailed(f"job {submitted.id} failed: {kind}: {error}", kind)
        else:
            submitted.end = Result(id=submitted.id, output=outputs if job.has_list else outputs[0])


class _FakeClient(Client):
    """Every call of :class:`Client` that would reach Redis asks the fake fleet."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.settings, self._fleet = fleet.settings, fleet

    def admit(self, job: Job, admission: Admission, tiers: Sequence[str] | None = None) -> Job:
        if not concerns(job, admission):
            return job
        celery_message.write(job, self.settings)
        return admit(job, None, admission, datetime.now(UTC), self.settings, tiers)

    def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        return self._fleet.submit(jobs)

    def results(
        self, job_ids: Iterable[str], timeout: float | None = None
    ) -> Iterator[tuple[str, Result | StokerError]]:
        open_ids = list(dict.fromkeys(job_ids))
        ended = [(job_id, end) for job_id in open_ids if (end := self._fleet.end(job_id)) is not None]
        yield from ended
        if timeout is None and len(ended) < len(open_ids):
            raise never(next(job_id for job_id in open_ids if self._fleet.end(job_id) is None))

    def stream(self, job_id: str, after: str | None = None, timeout: float | None = None) -> Iterator[Piece]:
        yield from pieces(self._fleet.end(job_id), job_id, Reading(after, timeout), timeout)

    def status(self, job_id: str) -> Status:
        return status_of(self._fleet.end(job_id))

    def waiting(self, job_id: str, model: str | None = None, tier: str | None = None) -> Waiting:  # noqa: ARG002
        return self._fleet.waiting(job_id)

    def obstacle(self, model: str) -> str:
        self._fleet.reach()
        self.settings.model(model)
        return ""

    def cancel(self, job_id: str, **known: Unpack[Whereabouts]) -> bool:  # noqa: ARG002  as a client's
        return self._fleet.cancel(job_id)

    def cancel_many(self, job_ids: Sequence[str], **known: Unpack[Whereabouts]) -> None:  # noqa: ARG002  as a client's
        for job_id in job_ids:
            self._fleet.cancel(job_id)

    def forget(self, job_ids: Iterable[str]) -> None:
        self._fleet.reach()
        for job_id in job_ids:
            self._fleet.jobs.pop(job_id, None)

    def close(self) -> None:
        """Nothing is open."""


def status_of(end: Result | StokerError | None) -> Status:
    """The status that an end stands for."""
    if end is None:
        return Status.QUEUED
    if isinstance(end, JobCancelled | JobExpired):
        return Status.CANCELLED
    return Status.FAILED if isinstance(end, StokerError) else Status.SUCCEEDED


def never(job_id: str) -> ResultTimeout:
    """For a wait without a timeout that could never end."""
    return ResultTimeout(f"job {job_id} is queued on a fake fleet, and this call would wait for ever: give a timeout")


def pieces(end: Result | StokerError | None, job_id: str, reading: Reading, timeout: float | None) -> Iterator[Piece]:
    """The pieces of a job with that end."""
    if end is None:
        raise silent(job_id, timeout)
    if isinstance(end, StokerError):
        raise end
    yield from reading.finish(end.output)


def silent(job_id: str, timeout: float | None) -> ResultTimeout:
    """For a stream of a job that is queued."""
    return ResultTimeout(f"job {job_id} made nothing for {timeout} s; it goes on, ask again")


class _FakeAsyncClient(AsyncClient):
    """Every call of :class:`AsyncClient` that would reach Redis asks the fake fleet."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.settings, self._fleet, self._sync = fleet.settings, fleet, _FakeClient(fleet)

    async def admit(self, job: Job, admission: Admission, tiers: Sequence[str] | None = None) -> Job:
        return self._sync.admit(job, admission, tiers)

    async def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        return self._fleet.submit(jobs)

    async def results(
        self, job_ids: Iterable[str], timeout: float | None = None
    ) -> AsyncIterator[tuple[str, Result | StokerError]]:
        for found in self._sync.results(job_ids, timeout):
            yield found

    async def follow(
        self,
        job_id: str,
        after: str | None = None,
        timeout: float | None = None,
        *,
        reasoning: bool = False,
        calls: bool = False,
    ) -> AsyncGenerator[Piece | Result]:
        for piece in pieces(
            self._fleet.end(job_id), job_id, Reading(after, timeout, reasoning=reasoning, calls=calls), timeout
        ):
            yield piece
        yield await self.result(job_id)

    async def status(self, job_id: str) -> Status:
        return self._sync.status(job_id)

    async def waiting(self, job_id: str, model: str | None = None, tier: str | None = None) -> Waiting:
        return self._sync.waiting(job_id, model, tier)

    async def obstacle(self, model: str) -> str:
        return self._sync.obstacle(model)

    async def cancel(self, job_id: str, **known: Unpack[Whereabouts]) -> bool:  # noqa: ARG002  as a client's
        return self._sync.cancel(job_id)

    async def cancel_many(self, job_ids: Sequence[str], **known: Unpack[Whereabouts]) -> None:  # noqa: ARG002  as a client's
        self._sync.cancel_many(job_ids)

    async def forget(self, job_ids: Iterable[str]) -> None:
        self._sync.forget(job_ids)

    async def aclose(self) -> None:
        """Nothing is open."""
