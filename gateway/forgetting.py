"""Answers that were delivered are forgotten: the results and streams of synchronous requests, which nobody can ask for.

A request that its client may repeat by itself is kept for as long as that may be; one with an ``Idempotency-Key`` stays
for ``redis.result_ttl_s``. Ids are collected, so that many requests cost one write.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time

from redis.exceptions import RedisError

from producer.async_client import AsyncClient
from producer.contract import keys

from .attempt import Attempt, repeats_ms

logger = logging.getLogger(__name__)

EVERY_S = 0.5
"""Interval of the writes, in seconds."""
SETTLING_S = 10.0
"""Seconds in which a worker has written the last of a job that was cancelled."""
AT_ONCE = 500
"""Most jobs in one write."""
MOST = 100_000
"""Most jobs that are remembered to be forgotten; those beyond expire with ``redis.result_ttl_s``."""


class Forgetting:
    """The jobs to be forgotten, in the order of their times."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._due: list[tuple[float, str, bool]] = []  # when, job, and whether a client may repeat its request

    def answered(self, job_id: str, attempt: Attempt | None) -> None:
        """The answer of a job is on its way."""
        self._add(job_id, attempt, 0.0)

    def abandoned(self, job_id: str, attempt: Attempt | None) -> None:
        """A job was cancelled, or has ended without a result."""
        self._add(job_id, attempt, SETTLING_S)

    def _add(self, job_id: str, attempt: Attempt | None, after_s: float) -> None:
        if (attempt is None or not attempt.keyed) and len(self._due) < MOST:
            heapq.heappush(self._due, (time.monotonic() + after_s, job_id, attempt is not None))

    async def run(self) -> None:
        """Forget, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                while await self.write():
                    pass
            except RedisError as error:
                logger.warning("delivered results stay for now: %s", error)

    async def write(self) -> bool:
        """Forget some of the jobs that are due; whether there may be more.

        Raises:
            RedisError: they are tried again.
        """
        now = time.monotonic()
        due: list[tuple[float, str, bool]] = []
        while self._due and self._due[0][0] <= now and len(due) < AT_ONCE:
            due.append(heapq.heappop(self._due))
        if not due:
            return False
        gone = [name for _, job_id, kept in due if not kept for name in (keys.result(job_id), keys.stream(job_id))]
        kept_ms = repeats_ms(self._client)
        try:
            async with self._client.redis.pipeline(transaction=False) as pipe:
                if gone:
                    pipe.unlink(*gone)
                for _, job_id, kept in due:
                    if kept:
                        pipe.pexpire(keys.result(job_id), kept_ms, lt=True)
                        pipe.pexpire(keys.stream(job_id), kept_ms, lt=True)
                await pipe.execute()
        except RedisError:
            for each in due:
                heapq.heappush(self._due, each)
            raise
        return len(due) == AT_ONCE
