"""RQ: a process for each job, or (``simple``) none."""

from __future__ import annotations

import time

from given import JOB_TIMEOUT_S, NAP_S, RETRIES, URL
from redis import Redis
from rq import Queue, Retry

LIMITS = {"retry": Retry(max=RETRIES)}


def echo(value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        time.sleep(NAP_S)
    return value


class Peer:
    """See ``driver``."""

    def __init__(self) -> None:
        self.redis = Redis.from_url(URL)
        self.queue = Queue(connection=self.redis)

    def enqueue(self, jobs: int) -> list[str]:
        """All in one pipeline."""
        return [
            job.id
            for job in self.queue.enqueue_many(
                [Queue.prepare_data("rq_app.echo", (f"job {n}",), timeout=JOB_TIMEOUT_S, **LIMITS) for n in range(jobs)]
            )
        ]

    def stored(self, tokens: list[str]) -> list[bool]:
        """Failures have results too, so its status is asked for."""
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in tokens:
                pipe.hget(f"rq:job:{job_id}", "status")
            return [status == b"finished" for status in pipe.execute()]

    def ask(self) -> None:
        """Its result is read from a stream, blocking."""
        job = self.queue.enqueue("rq_app.echo", "ask", job_timeout=JOB_TIMEOUT_S, **LIMITS)
        if job.latest_result(timeout=10) is None:
            raise TimeoutError(f"job {job.id} did not end")
