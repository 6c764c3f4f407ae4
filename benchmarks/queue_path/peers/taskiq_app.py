"""taskiq with taskiq-redis: its stream broker, which acknowledges, or (``list``) its list broker, which does not."""

from __future__ import annotations

import asyncio

from given import NAP_S, REDELIVER_S, URL, VARIANT
from redis.asyncio import Redis
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

AT_ONCE = 50
"""Sends under way at the same time: as many as its pool has connections."""

results = RedisAsyncResultBackend(URL, result_ex_time=3600)
if VARIANT == "list":
    broker = ListQueueBroker(URL).with_result_backend(results)
else:
    broker = RedisStreamBroker(
        URL, idle_timeout=int(REDELIVER_S * 1000), unacknowledged_lock_timeout=5.0, xread_block=500
    ).with_result_backend(results)


@broker.task(task_name="echo")
async def echo(value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        await asyncio.sleep(NAP_S)
    return value


class Peer:
    """See ``driver``."""

    def __init__(self) -> None:
        import uvloop

        self.run = asyncio.Runner(loop_factory=uvloop.new_event_loop).run
        self.redis = Redis.from_url(URL)
        self.run(broker.startup())

    def enqueue(self, jobs: int) -> list[str]:
        """Many under way at a time."""
        return self.run(self._enqueue(jobs))

    async def _enqueue(self, jobs: int) -> list[str]:
        sent: list[str] = []
        for begin in range(0, jobs, AT_ONCE):
            some = range(begin, min(jobs, begin + AT_ONCE))
            sent += [task.task_id for task in await asyncio.gather(*(echo.kiq(f"job {n}") for n in some))]
        return sent

    def stored(self, tokens: list[str]) -> list[bool]:
        """A result is a string of its own, named like its task."""
        return self.run(self._stored(tokens))

    async def _stored(self, tokens: list[str]) -> list[bool]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for task_id in tokens:
                pipe.exists(task_id)
            return [bool(found) for found in await pipe.execute()]

    def ask(self) -> None:
        """It can only poll: every millisecond, by default every 200."""
        self.run(self._ask())

    async def _ask(self) -> None:
        task = await echo.kiq("ask")
        await task.wait_result(check_interval=0.001, timeout=10)
