"""Announced results: one connection receives the results that any number of tasks wait for."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from typing import TYPE_CHECKING

from .cancel_tasks import end
from .collect import AT_ONCE, RECHECK_S
from .contract import keys
from .contract.fleet.settings import Settings
from .contract.message import celery_message
from .outage import Outage, persist

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub


class Announcements:
    """Lets tasks of one event loop wait for stored results, over one connection for all of them.

    As :class:`producer.collect.Collector` does, it reads a result once its subscription is confirmed, so that none is
    missed, and reads again from time to time. A broken connection is made again; waiting tasks fail only after Redis
    has been away for ``outage.OUTAGE_S``.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._waiting: dict[bytes, list[Future[bytes]]] = {}  # by channel, which is also the result's key
        self._unsubscribed: list[bytes] = []
        self._confirmed: list[bytes] = []
        self._left: list[bytes] = []
        self._something_to_do = asyncio.Event()
        self._task: Task[None] | None = None

    def wait(self, job_id: str) -> Future[bytes]:
        """A future of the stored result of a job. Cancel it to stop waiting.

        It fails with ``BrokerUnavailable`` when Redis stays away.
        """
        name = keys.result(job_id).encode()
        future: Future[bytes] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda ended: self._leave(name, ended))
        if name not in self._waiting:
            self._unsubscribed.append(name)
        self._waiting.setdefault(name, []).append(future)
        self._something_to_do.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def aclose(self) -> None:
        """Stop waiting and close the connection."""
        if self._task is not None:
            await end([self._task])
            self._task = None
        for future in [future for futures in self._waiting.values() for future in futures]:
            future.cancel()

    def _leave(self, name: bytes, future: Future[bytes]) -> None:
        futures = self._waiting.get(name, [])
        if future in futures:
            futures.remove(future)
        if not futures and self._waiting.pop(name, None) is not None:
            self._left.append(name)
            self._something_to_do.set()

    async def _run(self) -> None:
        outage = Outage(self._settings, "waiting for a result")
        await persist(lambda: self._listen(outage), outage, self._fail, RECHECK_S)

    async def _listen(self, outage: Outage) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.connect()
            self._unsubscribed, self._confirmed, self._left = list(self._waiting), [], []
            self._something_to_do.set()
            await self._both(self._hear(pubsub), self._tell(pubsub, outage))

    async def _both(self, *coroutines: object) -> None:
        """Run both until one fails."""
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]  # type: ignore[call-overload]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(tasks)

    async def _hear(self, pubsub: PubSub) -> None:
        while True:
            # Not None: before version 8 redis-py then takes the socket timeout for the end of the connection.
            message = await pubsub.get_message(timeout=RECHECK_S)
            if message is None:
                continue
            name = message["channel"]
            if message["type"] == "subscribe":
                self._confirmed.append(name)
                self._something_to_do.set()
            elif message["type"] == "message":
                self._told(name, message["data"])

    async def _tell(self, pubsub: PubSub, outage: Outage) -> None:
        look_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(look_at):
                    await self._something_to_do.wait()
            except TimeoutError:
                self._confirmed = list(self._waiting)  # should an announcement have been missed
                look_at = loop.time() + RECHECK_S
            self._something_to_do.clear()
            left, self._left = [name for name in self._left if name not in self._waiting], []
            new, self._unsubscribed = [name for name in self._unsubscribed if name in self._waiting], []
            if left:
                await pubsub.unsubscribe(*left)
            if new:
                await pubsub.subscribe(*new)
            confirmed, self._confirmed = [name for name in self._confirmed if name in self._waiting], []
            for start in range(0, len(confirmed), AT_ONCE):
                names = confirmed[start : start + AT_ONCE]
                for name, stored in zip(names, await self._redis.mget(names), strict=True):
                    self._told(name, stored)
            outage.end()

    def _told(self, name: bytes, stored: bytes | str | None) -> None:
        if name in self._waiting and celery_message.is_final(stored):
            for future in list(self._waiting[name]):
                if not future.done():
                    future.set_result(stored)

    def _fail(self, error: Exception) -> None:
        for future in [future for futures in self._waiting.values() for future in futures]:
            if not future.done():
                future.set_exception(error)
