"""The client for asyncio: the same calls as :class:`producer.client.Client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from . import envelope, heartbeat, keys
from .client import build, outcome, revoke
from .collect import RECHECK_S
from .connection import AWAY, close_async, connect_async
from .errors import ResultTimeout, StokerError
from .job import Item, Job, Result, Status
from .outage import Outage
from .settings import Settings
from .stream import AT_ONCE, Piece, Reading, entries
from .submission import CANCEL_LUA, SUBMIT_LUA, Deadline, arguments, confirm, plan, unavailable


class AsyncClient:
    """Submits jobs and fetches results from one event loop.

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
    ) -> str:
        """Queue one job and return its id; see :meth:`producer.client.Client.submit`."""
        fields = {
            "parameters": parameters,
            "tenant": tenant,
            "stream": stream,
            "idempotency_key": idempotency_key,
            "metadata": metadata,
        }
        return (await self.submit_many([build(self.settings, model, input, tier, deadline, fields)]))[0]

    async def submit_many(self, jobs: Iterable[Job]) -> list[str]:
        """Queue many jobs, one write for each 1,000 of a queue; see :meth:`producer.client.Client.submit_many`."""
        ids, pushes = plan(jobs, self.settings)
        try:
            answers = []
            for push in pushes:
                answers.append(await self._submit(*arguments(push, self.settings)))
        except AWAY as error:
            raise unavailable(error, self.settings, "submitting") from error
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
        loop = asyncio.get_running_loop()
        waiting = dict.fromkeys(job_ids)
        deadline = None if timeout is None else loop.time() + timeout
        outage = Outage(self.settings, "waiting for a result")
        while waiting:
            try:
                async for job_id, stored in self._wait(list(waiting), deadline):
                    outage.end()
                    del waiting[job_id]
                    yield job_id, outcome(stored)
            except AWAY as error:
                await asyncio.sleep(outage.ride_out(error))
            if deadline is not None and loop.time() >= deadline:
                return

    async def stream(self, job_id: str, after: str | None = None, timeout: float | None = None) -> AsyncIterator[Piece]:
        """The output of a job, in pieces, while it is made; see :meth:`producer.client.Client.stream`."""
        reading, outage = Reading(after, timeout), Outage(self.settings, "reading a stream")
        ended: Result | StokerError | None = None
        while True:
            try:
                async with self.redis.pipeline(transaction=False) as pipe:
                    pipe.xread({keys.stream(job_id): reading.last}, AT_ONCE, None if ended else reading.wait_ms)
                    pipe.get(keys.result(job_id))
                    found, stored = await pipe.execute()
                outage.end()
            except AWAY as error:
                await asyncio.sleep(outage.ride_out(error))
                continue
            for piece in reading.read(entries(found)):
                yield piece
            if ended and not found:
                break
            if ended is None and envelope.is_final(stored):
                ended = outcome(stored)
            elif not found and reading.overdue:
                raise ResultTimeout(f"job {job_id} made nothing for {timeout} s; it goes on, ask again")
        if isinstance(ended, StokerError):
            raise ended
        for piece in reading.finish(ended.output):
            yield piece

    async def _wait(self, job_ids: list[str], deadline: float | None) -> AsyncIterator[tuple[str, bytes]]:
        """Stored results as they appear. Looks only once it is subscribed, so that none slips between."""
        loop = asyncio.get_running_loop()
        names = {keys.result(job_id): job_id for job_id in job_ids}
        unconfirmed = set(names)
        async with self.redis.pubsub() as pubsub:
            await pubsub.subscribe(*names)
            look_at = loop.time() + RECHECK_S
            while names:
                if not unconfirmed or loop.time() >= look_at:
                    for name, stored in zip(list(names), await self.redis.mget(list(names)), strict=True):
                        if envelope.is_final(stored):
                            yield names.pop(name), stored
                    unconfirmed, look_at = {""}, loop.time() + RECHECK_S
                if not names or (deadline is not None and loop.time() >= deadline):
                    return
                until = look_at if deadline is None else min(look_at, deadline)
                message = await pubsub.get_message(timeout=max(0.0, until - loop.time()))
                if message is None:
                    continue
                name = message["channel"].decode()
                if message["type"] == "subscribe":
                    unconfirmed.discard(name)
                elif envelope.is_final(message["data"]) and name in names:
                    yield names.pop(name), message["data"]

    async def status(self, job_id: str) -> Status:
        """Where the job is now; see :meth:`producer.client.Client.status`."""
        try:
            stored = await self.redis.get(keys.result(job_id))
            if stored is not None and envelope.is_final(stored):
                return envelope.status(stored)
            running = any(heartbeat.mark(job_id) in beat.running for beat in await self._beats())
        except AWAY as error:
            raise unavailable(error, self.settings, "asking for a status") from error
        return Status.RUNNING if running else Status.QUEUED

    async def _beats(self) -> list[heartbeat.Heartbeat]:
        """As :func:`producer.heartbeat.read_all`, which both clients must agree with."""
        found = await self.redis.zrange(keys.workers(), 0, -1)
        names = sorted(heartbeat.text(name) for name in found)
        return heartbeat.parse(await self.redis.mget([keys.worker(name) for name in names]), names) if names else []

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job, queued or running; see :meth:`producer.client.Client.cancel`."""
        try:
            cancelled = await self._cancel(
                [keys.result(job_id), keys.cancelled()],
                [job_id, envelope.cancelled_meta(job_id), int(self.settings.redis.result_ttl_s * 1000)],
            )
            if cancelled:
                await asyncio.to_thread(revoke, self.settings, job_id)
        except AWAY as error:
            raise unavailable(error, self.settings, "cancelling") from error
        return bool(cancelled)

    async def aclose(self) -> None:
        """Give up the connections."""
        await close_async(self.redis)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
