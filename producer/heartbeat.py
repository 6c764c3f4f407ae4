"""What a worker says about itself, every second: the autoscaler, ``status`` and the client read it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from . import keys

if TYPE_CHECKING:
    from redis import Redis

INTERVAL_S = 1.0
TTL_S = 10.0
"""A worker silent for this long is taken for dead by its observers; its jobs go by their leases."""


class WorkerState(StrEnum):
    """The life of a worker, in order."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


class Heartbeat(BaseModel):
    """One worker at one moment. Times are Unix seconds, durations seconds."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    device: str
    host: str
    pid: int
    pid_created_at: float
    """Creation time of the process, so that a pid used again is not taken for this worker."""
    launched_by: str = ""
    """The autoscaler's launcher that started it; empty for one started by hand."""
    state: WorkerState
    started_at: float
    ready_at: float | None = None
    beat_at: float
    capacity: int = 0
    running: tuple[str, ...] = ()
    """Marks of the jobs that it holds (:func:`mark`): who may read a heartbeat need not learn their ids."""
    jobs_done: int = 0
    jobs_per_s: float = 0.0
    """Measured over the time the engine was busy lately; 0 until the first job is done."""
    busy: float = 0.0
    """Share of the last interval in which the engine held work."""
    batch_size: float = 0.0
    """Mean number of requests that shared the device, lately."""


def mark(job_id: str) -> str:
    """What a heartbeat says of a job: known by who knows its id, with which its result could be had."""
    return hashlib.blake2b(job_id.encode(), digest_size=8).hexdigest()


def write(redis: Redis, beat: Heartbeat) -> None:
    """Publish a heartbeat, in one round trip."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.set(keys.worker(beat.name), beat.model_dump_json(), px=int(TTL_S * 1000))
        pipe.zadd(keys.workers(), {beat.name: beat.beat_at})
        pipe.execute()


def remove(redis: Redis, name: str) -> None:
    """Forget a worker that ended on purpose."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.delete(keys.worker(name))
        pipe.zrem(keys.workers(), name)
        pipe.execute()


def read_all(redis: Redis) -> list[Heartbeat]:
    """The last heartbeat of every live worker, by name."""
    found = redis.zrangebyscore(keys.workers(), time.time() - 2 * TTL_S, "+inf")
    names = sorted(text(name) for name in found)
    return parse(redis.mget([keys.worker(name) for name in names])) if names else []


def parse(found: Iterable[bytes | str | None]) -> list[Heartbeat]:
    """The heartbeats among stored values; expired ones are None."""
    return [Heartbeat.model_validate_json(value) for value in found if value is not None]


def text(value: object) -> str:
    """A name as Redis returns it."""
    return value.decode() if isinstance(value, bytes) else str(value)
