"""The service gap on the queues of a real server: the script that live workers claim with, and its ends of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Job as Submitted
from producer.submission import SUBMIT_LUA, arguments, plan
from scheduler.lease.queue import Queue
from scheduler.order.preemption import Room

from .gap import Job

if TYPE_CHECKING:
    from redis import Redis

MODEL, TIER = "m", "batch"
CHARACTERS = 4
"""Of a token."""


def fleet(url: str, weights: dict[str, float]) -> Settings:
    """One model and one tier."""
    tenants = {name: {"weight": weight} for name, weight in weights.items()}
    return Settings(redis={"url": url}, models={MODEL: {"engine": "echo", "tiers": [TIER]}}, tenants=tenants)


class Live:
    """Jobs in Redis, claimed as workers claim them. Without ``shared`` all are the default tenant's: first come."""

    def __init__(self, redis: Redis, settings: Settings, jobs: Iterable[Job], *, shared: bool = True) -> None:
        redis.flushdb()
        self._queue = Queue(redis, settings, MODEL)
        self._queue.load()
        self._owners = count()
        self._leases: dict[int, str] = {}
        known = list(jobs)
        submitted = [
            Submitted(
                model=MODEL,
                tier=TIER,
                input="x" * (CHARACTERS * job.input_tokens),
                tenant=job.tenant if shared else "default",
            )
            for job in known
        ]
        ids, pushes = plan(submitted, settings)
        submit = redis.register_script(SUBMIT_LUA)
        for push in pushes:
            submit(*arguments(push, settings))
        self._jobs = dict(zip(ids, known, strict=True))
        self._ids = {job.number: job_id for job_id, job in self._jobs.items()}

    def claim(self, room: int) -> list[Job]:
        """See :class:`benchmarks.fairness.gap.Source`."""
        command = self._queue.claim_command(Room.of(room), f"w.{next(self._owners)}")
        taken = []
        for claimed in self._queue.read_claim(self._queue.redis.execute_command(*command)).jobs:
            job = self._jobs[json.loads(claimed.message)["headers"]["id"]]
            self._leases[job.number] = claimed.lease
            taken.append(job)
        return taken

    def finish(self, jobs: Sequence[Job]) -> None:
        """See :class:`benchmarks.fairness.gap.Source`."""
        if jobs:
            self._queue.finish((self._leases.pop(job.number), self._ids[job.number], _result(job)) for job in jobs)


def _result(job: Job) -> bytes:
    usage = {"input_tokens": job.input_tokens, "output_tokens": job.output_tokens}
    return json.dumps({"status": "SUCCESS", "result": {"output": "", "usage": usage, "timing": {}}}).encode()
