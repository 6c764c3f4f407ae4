"""What a worker says about itself, every second: the autoscaler, ``status`` and the client read it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from . import keys
from .server.dialogue import Dialogue, run
from .server.redis_errors import optional_write

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

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

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)  # the fleet is sized by these numbers

    name: str
    model: str
    device: str
    device_type: str = ""
    """What devices of the same speed have in common: ``cpu``, or a GPU's product name; empty when not known."""
    device_uuid: str = ""
    """What the device is known by, whatever it is called: ``GPU-...``, ``MIG-...``, or a made-up one of a CPU slot."""
    host: str
    pid: int
    machine: str = ""
    pid_started_ticks: int = 0
    """With the pid, which process it is, whatever the clock and the host's name (``process_identity.py``)."""
    pid_created_at: float = 0.0
    """When the process was created, by the clock of that moment: for readers of earlier versions."""
    launched_by: str = ""
    """The autoscaler's launcher that started it; empty for one started by hand."""
    state: WorkerState
    started_at: float
    ready_at: float | None = None
    beat_at: float
    capacity: int = 0
    running: tuple[str, ...] = ()
    """Marks of the jobs that it holds (:func:`mark`): readers of a heartbeat need not learn their ids."""
    jobs_done: int = 0
    jobs_per_s: float = 0.0
    """Measured over the time the engine was busy lately; 0 until the first job is done."""
    busy: float = 0.0
    """Share of the last interval in which the engine held work."""
    batch_size: float = 0.0
    """Mean number of requests that shared the device, lately."""
    breaker: str = "closed"
    """``open`` or ``half-open`` while its engine fails most requests, so that it gets one job at a time."""
    failing: str = ""
    """The failures that opened the breaker, in words; empty while it is closed."""


def mark(job_id: str) -> str:
    """The mark of a job in a heartbeat. It can be computed from the job's id, but not the id from it."""
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
    return run(redis, reading())


def reading() -> Dialogue[list[Heartbeat]]:
    """:func:`read_all` for either kind of client.

    A worker is alive while its key exists. Keys expire by the server's clock; the reader's clock does not matter.
    """
    names = sorted((yield lambda redis: redis.zrange(keys.workers(), 0, -1)), key=text)
    if not names:
        return []
    found = yield lambda redis: redis.mget([keys.worker(text(name)) for name in names])
    if expired := [name for name, value in zip(names, found, strict=True) if value is None]:
        # A worker that speaks again at this very moment is back in the index with its next beat.
        with optional_write():
            yield lambda redis: redis.zrem(keys.workers(), *expired)
    return parse(found, map(text, names))


def parse(found: Iterable[bytes | str | None], names: Iterable[str] = repeat("a worker")) -> list[Heartbeat]:
    """The heartbeats among stored values; expired ones are None.

    One that is none, as of a worker of another version, is passed over: the others must still be seen.

    Args:
        names: whose they are, for the log.
    """
    beats: list[Heartbeat] = []
    for value, name in zip(found, names, strict=False):
        if value is None:
            continue
        try:
            beats.append(Heartbeat.model_validate_json(value))
        except ValidationError:
            _refuse(name)
    return beats


@lru_cache(maxsize=1024)  # said once of each, not every second
def _refuse(name: str) -> None:
    log.warning("the heartbeat of %s is passed over: it is none of this version of Stoker", name)


def text(value: object) -> str:
    """A name as Redis returns it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
