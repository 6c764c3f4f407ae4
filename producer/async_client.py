"""The client for asyncio: every call of :class:`producer.client.Client`, with the same parameters and errors.

All are awaited, or read with ``async for``, except ``job``, which sends nothing. ``close`` is named ``aclose``, and
``follow`` is additional.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import calls
from .announcements import Announcements
from .client import TOLD_S
from .collect import outcome
from .contract import keys
from .contract.errors import ResultTimeout, StokerError
from .contract.fleet.settings import Settings
from .contract.message.job import Item, Job, Result, Status
from .contract.queue.withdrawal import Whereabouts
from .contract.server.connection import close_async, connect_async
from .contract.server.dialogue import run_async
from .contract.server.redis_errors import broker_errors
from .contract.server.rights import Rights
from .estimates.admission import Admission
from .estimates.queued_job import Waiting
from .multiplex import Multiplex
from .outage import Outage
from .stream import AT_ONCE, Piece, Reading, entries
from .submission import SUBMIT_LUA, Deadline, arguments, build, confirm, plan


class AsyncClient:
    """Submits jobs and fetches results from one event loop; for ``reads`` see :class:`producer.client.Client`.

    However many tasks wait and read at the same time, two connections hear for all of them.

    >>> async with AsyncClient() as client:
    ...     job = await client.submit("minilm", ["one text", "another"])
    ...     vectors = (await client.result(job, timeout=60)).output
    """

    def __init__(self, settings: Settings | None = None, *, reads: bool | None = None) -> None:
        self.settings = settings or Settings.load()
        self._rights = Rights.of(self.settings, reads)
        # No silent repeats, as in the sync client.
        self.redis: Redis = connect_async(self.settings, retry=Retry(NoBackoff(), 0))
        self._submit = self.redis.register_script(SUBMIT_LUA)
        self._announcements = Announcements(self.redis, self.settings)
        self._streams = Multiplex(self.redis, self.settings)

    async def submit(
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
        """Queue one job and return its id; see :meth:`producer.client.Client.submit`."""
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
        return (await self.submit_many([await self.admit(job, admission)]))[0]

    async def admit(self, job: Job, admission: Admission, tiers: Sequence[str] | None = None) -> Job:
        """The job as :meth:`submit` would queue it now; see :meth:`producer.client.Client.admit`."""
        return await run_async(self.redis, calls.admit(self.settings, job, admission, tiers))

    def job(
        self,
        model: str,
        input: Item | Sequence[Item],
        *,
        tier: str | None = None,
        deadline: Deadline | None = None,
        **fields: Any,
    ) -> Job:
        """Build a job for :meth:`submit_many`, with ``submit``'s defaults; not awaited, as nothing is sent."""
        return build(self.settings, model, input, tier, deadline, fields)

    async def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        """Queue many jobs, one write for each 1,000 of a queue; see :meth:`producer.client.Client.submit_many`."""
        ids, pushes = plan(jobs, self.settings)
        with broker_errors(self.settings, "submitting"):
            answers = []
            for push in pushes:
                answers.append(await self._submit(*arguments(push, self.settings, self._rights)))
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
        self,
        job_id: str,
        after: str | None = None,
        timeout: float | None = None,
        *,
        reasoning: bool = False,
        calls: bool = False,
    ) -> AsyncGenerator[Piece | Result]:
        """What :meth:`stream` tells, and then the result. With ``reasoning``, also pieces of the outputs' reasoning;
        with ``calls``, of their tool calls."""
        reading = Reading(after, timeout, reasoning=reasoning, calls=calls)
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
        return await run_async(self.redis, calls.status(self.settings, job_id))

    async def waiting(self, job_id: str, model: str | None = None, tier: str | None = None) -> Waiting:
        """Where the job is, and until when it waits; see :meth:`producer.client.Client.waiting`."""
        return await run_async(self.redis, calls.waiting(self.settings, job_id, model, tier))

    async def obstacle(self, model: str) -> str:
        """What keeps jobs of the model from being answered; see :meth:`producer.client.Client.obstacle`."""
        return await run_async(self.redis, calls.obstacle(self.settings, model))

    async def cancel(self, job_id: str, **known: Unpack[Whereabouts]) -> bool:
        """Cancel a job, queued or running; see :meth:`producer.client.Client.cancel`."""
        cancelled = bool(await run_async(self.redis, calls.cancel(self.settings, [job_id], known, self._rights.writes)))
        if cancelled and not self._rights.writes:
            async for _ in self.results([job_id], TOLD_S):
                pass
        return cancelled

    async def cancel_many(self, job_ids: Sequence[str], **known: Unpack[Whereabouts]) -> None:
        """Cancel many jobs in one pipelined write; see :meth:`producer.client.Client.cancel_many`."""
        await run_async(self.redis, calls.cancel(self.settings, job_ids, known, self._rights.writes))

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Delete the results of jobs that have ended; see :meth:`producer.client.Client.forget`."""
        await run_async(self.redis, calls.forget(self.settings, job_ids))

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
