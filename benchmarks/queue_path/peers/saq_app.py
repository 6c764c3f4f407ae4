"""saq: a job is one string in Redis, from when it is queued until its result expires."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from given import JOB_TIMEOUT_S, NAP_S, RETRIES, URL
from saq import Queue
from saq.job import Status

uvloop.install()

AT_ONCE = 20
"""Sends under way at the same time: as many as its queue allows."""


async def echo(_: dict[str, Any], *, value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        await asyncio.sleep(NAP_S)
    return value


queue = Queue.from_url(URL)
settings = {
    "queue": queue,
    "functions": [echo],
    # It takes 5 s for each job that a killed worker held, one after the other: in the kills, let that be few.
    "concurrency": 2 if NAP_S else 10,
    "timers": {"sweep": 5},  # by default once a minute
}
LIMITS = {"timeout": JOB_TIMEOUT_S, "retries": RETRIES}


class Peer:
    """See ``driver``."""

    def __init__(self) -> None:
        self.run = asyncio.Runner().run
        self.run(queue.connect())

    def enqueue(self, jobs: int) -> list[str]:
        """Many under way at a time."""
        return self.run(self._enqueue(jobs))

    async def _enqueue(self, jobs: int) -> list[str]:
        sent: list[str] = []
        for begin in range(0, jobs, AT_ONCE):
            some = range(begin, min(jobs, begin + AT_ONCE))
            found = await asyncio.gather(*(queue.enqueue("echo", value=f"job {n}", **LIMITS) for n in some))
            sent += [job.key for job in found]
        return sent

    def stored(self, tokens: list[str]) -> list[bool]:
        """The result is part of the job."""
        jobs = self.run(queue.jobs(tokens))
        return [job is not None and job.status == Status.COMPLETE for job in jobs]

    def ask(self) -> None:
        """It can only poll, or listen too late: every millisecond, by default every 500."""
        self.run(queue.apply("echo", value="ask", timeout=10, poll_interval=0.001))
