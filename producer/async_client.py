"""The client for asyncio: the same calls as :class:`producer.client.Client`, awaited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .announcements import Announcements
from .client import build, outcome, revoke
from .contract import celery_message, heartbeat, keys
from .contract.connection import close_async, connect_async
from .contract.errors import ResultTimeout, StokerError
from .contract.job import Item, Job, Result, Status
from .contract.redis_errors import broker_errors
from .contract.settings import Settings
from .estimates.admission import Admission, admit, concerns
from .estimates.on_arrival import Arrival
from .multiplex import Multiplex
from .outage import Outage
from .stream import AT_ONCE, Piece, Reading, entries
from .submission import CANCEL_LUA, SUBMIT_LUA, Deadline, arguments, confirm, plan


class AsyncClient:
    """Submits jobs and fetches results from one event loop.

    However many tasks wait and read at the same time, two connections hear for all of them.

    >>> async with AsyncClient() as client:
    ...     job = await client.submit("minilm", ["one text", "another"])
    ...     vectors = (await client.result(job, timeout=60)).output
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.load()
        # No silent repeats, as in the sync client.
        self.redis: Redis = connect_async(self.settings, retry=Retry(NoBackoff(), 0))
        self._submit = self.redis.register_script(SUBMIT_LUA)
        self._cancel = self.redis.register_script(CANCEL_LUA)
        self._announcements = Announcements(self.redis, self.settings)
        self._streams = Multiplex(self.redis, self.settings)

    async def submit(
        self,
        model: str,
        input: Item | list[Item],
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
        """Queue one job and return its id; see :meth:`producer.client.Client.submit`."""
        fields = {
            "parameters": parameters,
            "tenant": tenant,
            "stream": stream,
            "idempotency_key": idempotency_key,
            "metadata": metadata,
        }
        job = build(self.settings, model, input, tier, deadline, fields)
        return (await self.submit_many([await self.admit(job, admission)]))[0]

    async def admit(self, job: Job, admission: Admission, tiers: Sequence[str] | None = None) -> Job:
        """The job as :meth:`submit` would queue it now; see :meth:`producer.client.Client.admit`."""
        if not concerns(job, admission):
            return job
        celery_message.check(job, self.settings)
        arrival = Arrival(job, self.settings, datetime.now(UTC))
        with broker_errors(self.settings, "asking for an estimate"):
            async with self.redis.pipeline(transaction=False) as pipe:
                arrival.ask(pipe)
                told = arrival.read(await pipe.execute(raise_on_error=False), await self._beats())
        return admit(job, told, admission, arrival.now, self.settings, tiers)

    async def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        """Queue many jobs, one write for each 1,000 of a queue; see :meth:`producer.client.Client.submit_many`."""
        ids, pushes = plan(jobs, self.settings)
        with broker_errors(self.settings, "submitting"):
            answers = []
            for push in pushes:
                answers.append(await self._submit(*arguments(push, self.settings)))
        confirm(pushes, answers)
        return ids

    async def result(self, job_id: str, timeout: float | None = None) -> Result:
        """Wait for a job to end; see :meth:`producer.client.Client.result`."""
        async for _, found in self.results([job_id], timeout):
            if isinstance(found, StokerError):
                raise found
            return found
        raise ResultTimeout(f"job {job_id} did not end within {timeout} s; it goes on, ask again")

    async def results(
        self,
        job_ids: Iterable[str],
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[str, Result | StokerError]]:
        """The results of many jobs as they end; see :meth:`producer.client.Client.results`."""
        ended: asyncio.Queue[str] = asyncio.Queue()
        waiting = {job_id: self._announcements.wait(job_id) for job_id in dict.fromkeys(job_ids)}
        for job_id, stored in waiting.items():
            stored.add_done_callback(functools.partial(_put, ended, job_id))
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        try:
            while waiting:
                async with asyncio.timeout_at(deadline):
                    job_id = await ended.get()
                yield job_id, outcome(waiting.pop(job_id).result())
        except TimeoutError:
            return
        finally:
            for stored in waiting.values():
                stored.cancel()

    async def stream(self, job_id: str, after: str | None = None, timeout: float | None = None) -> AsyncIterator[Piece]:
        """The output of a job, in pieces, while it is made; see :meth:`producer.client.Client.stream`."""
        async with aclosing(self.follow(job_id, after, timeout)) as following:
            async for news in following:
                if isinstance(news, Piece):
                    yield news

    async def follow(
        self, job_id: str, after: str | None = None, timeout: float | None = None
    ) -> AsyncGenerator[Piece | Result]:
        """What :meth:`stream` tells, and then the result."""
        reading = Reading(after, timeout)
        ended = self._announcements.wait(job_id)
        try:
            while not ended.done():
                news = asyncio.create_task(self._streams.entries(job_id, reading.last))
                try:
                    wait_s = None if timeout is None else reading.wait_s
                    either: tuple[asyncio.Future[Any], ...] = (news, ended)
                    await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                    came = news.result() if news.done() else []
                finally:
                    news.cancel()
                for piece in reading.read(came):
                    yield piece
                if not came and not ended.done() and reading.overdue:
                    raise ResultTimeout(f"job {job_id} made nothing for {timeout} s; it goes on, ask again")
            final = outcome(ended.result())
            async for piece in self._rest(job_id, reading):  # what was written before the result
                yield piece
        finally:
            ended.cancel()
        if isinstance(final, StokerError):
            raise final
        for piece in reading.finish(final.output):
            yield piece
        yield final

    async def _rest(self, job_id: str, reading: Reading) -> AsyncIterator[Piece]:
        """What a stream that has ended holds behind the place of a reader."""
        outage = Outage(self.settings, "reading a stream")
        while True:
            try:
                found = entries(await self.redis.xread({keys.stream(job_id): reading.last}, AT_ONCE))
                outage.end()
            except RedisError as error:
                await asyncio.sleep(outage.ride_out(error))
                continue
            if not found:
                return
            for piece in reading.read(found):
                yield piece

    async def status(self, job_id: str) -> Status:
        """Where the job is now; see :meth:`producer.client.Client.status`."""
        with broker_errors(self.settings, "asking for a status"):
            stored = await self.redis.get(keys.result(job_id))
            if stored is not None and celery_message.is_final(stored):
                return celery_message.status(stored)
            running = any(heartbeat.mark(job_id) in beat.running for beat in await self._beats())
        return Status.RUNNING if running else Status.QUEUED

    async def _beats(self) -> list[heartbeat.Heartbeat]:
        """As :func:`producer.contract.heartbeat.read_all`, which both clients must agree with."""
        found = await self.redis.zrange(keys.workers(), 0, -1)
        names = sorted(heartbeat.text(name) for name in found)
        return heartbeat.parse(await self.redis.mget([keys.worker(name) for name in names]), names) if names else []

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job, queued or running; see :meth:`producer.client.Client.cancel`."""
        with broker_errors(self.settings, "cancelling"):
            cancelled = await self._cancel(
                [keys.result(job_id), keys.cancelled()],
                [job_id, celery_message.cancelled_meta(job_id), int(self.settings.redis.result_ttl_s * 1000)],
            )
            if cancelled:
                await asyncio.to_thread(revoke, self.settings, job_id)
        return bool(cancelled)

    async def aclose(self) -> None:
        """Give up the connections."""
        await self._announcements.aclose()
        await self._streams.aclose()
        await close_async(self.redis)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _put(ended: asyncio.Queue[str], job_id: str, _: asyncio.Future[bytes]) -> None:
    ended.put_nowait(job_id)
