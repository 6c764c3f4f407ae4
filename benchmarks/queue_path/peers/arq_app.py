"""arq: jobs stay queued until they are done, marked as in progress for their time limit and 10 s."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.constants import result_key_prefix
from given import JOB_TIMEOUT_S, NAP_S, RETRIES, URL

uvloop.install()

AT_ONCE = 20
"""Sends under way at the same time; more were not faster."""


async def echo(_: dict[str, Any], value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        await asyncio.sleep(NAP_S)
    return value


class WorkerSettings:
    """What ``arq`` runs."""

    functions = (echo,)
    redis_settings = RedisSettings.from_dsn(URL)
    job_timeout = JOB_TIMEOUT_S
    max_tries = RETRIES
    poll_delay = 0.005  # by default half a second, in which it starts 100 jobs at most
    log_results = False


class Peer:
    """See ``driver``."""

    def __init__(self) -> None:
        self.run = asyncio.Runner().run
        self.redis: ArqRedis = self.run(create_pool(RedisSettings.from_dsn(URL)))

    def enqueue(self, jobs: int) -> list[str]:
        """Many under way at a time."""
        return self.run(self._enqueue(jobs))

    async def _enqueue(self, jobs: int) -> list[str]:
        sent: list[str] = []
        for begin in range(0, jobs, AT_ONCE):
            some = range(begin, min(jobs, begin + AT_ONCE))
            found = await asyncio.gather(*(self.redis.enqueue_job("echo", f"job {n}") for n in some))
            sent += [job.job_id for job in found]
        return sent

    def stored(self, tokens: list[str]) -> list[bool]:
        """A result is a string of its own."""
        return self.run(self._stored(tokens))

    async def _stored(self, tokens: list[str]) -> list[bool]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for job_id in tokens:
                pipe.exists(result_key_prefix + job_id)
            return [bool(found) for found in await pipe.execute()]

    def ask(self) -> None:
        """It can only poll: every millisecond, by default every 500."""
        self.run(self._ask())

    async def _ask(self) -> None:
        job = await self.redis.enqueue_job("echo", "ask")
        await job.result(timeout=10, poll_delay=0.001)
