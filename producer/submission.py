"""From jobs to the one write that queues them: what the sync and the async client share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import OutOfMemoryError

from . import envelope, keys
from .address import shown
from .errors import BrokerUnavailable, QueueFull
from .job import Job
from .settings import Settings

SUBMIT_LUA = files(__package__).joinpath("submit.lua").read_text()
CANCEL_LUA = files(__package__).joinpath("cancel.lua").read_text()

Deadline = datetime | timedelta | float
"""An instant with a time zone, or how long from now (as a timedelta, or in seconds)."""


@dataclass(slots=True)
class Push:
    """What one call of ``submit.lua`` takes: all the messages for one queue."""

    queue: str
    most: int
    keys: list[str] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)

    def add(self, message: bytes, marker: str | None) -> None:
        """Add a message, and the key that marks it as submitted if it may be submitted again."""
        if marker is None:
            self.args += (0, message)
        else:
            self.keys.append(marker)
            self.args += (len(self.keys) + 1, message)


def plan(jobs: Iterable[Job], settings: Settings) -> tuple[list[str], list[Push]]:
    """Check and encode jobs: their ids in order, and a push for each queue.

    Raises:
        InvalidJob: for the first job that is wrong; then nothing is queued.
    """
    ids: list[str] = []
    pushes: defaultdict[tuple[str, str], list[tuple[bytes, str | None]]] = defaultdict(list)
    for job in jobs:
        envelope.check(job, settings)
        job_id = job.id
        message = envelope.encode(job, job_id)
        envelope.check_size(message, job, settings)
        marker = keys.submission(job_id) if job.idempotency_key else None
        pushes[job.model, job.tier].append((message, marker))
        ids.append(job_id)
    return ids, [_push(model, tier, messages, settings) for (model, tier), messages in pushes.items()]


def _push(model: str, tier: str, messages: Sequence[tuple[bytes, str | None]], settings: Settings) -> Push:
    push = Push(keys.queue(model, tier), settings.model(model).limits.max_queued)
    for message, marker in messages:
        push.add(message, marker)
    return push


def arguments(push: Push, settings: Settings) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of ``submit.lua``."""
    return [push.queue, *push.keys], [push.most, int(settings.redis.result_ttl_s * 1000), *push.args]


def confirm(push: Push, answer: Sequence[int]) -> None:
    """Read the answer of ``submit.lua``.

    Raises:
        QueueFull: with when to come back.
    """
    pushed, length = answer
    if pushed < 0:
        raise QueueFull(
            f"queue {push.queue} holds {length} jobs of {push.most} allowed (limits.max_queued); "
            "nothing was queued on it, come back in a second",
            retry_after_s=1.0,
        )


AWAY = (redis.ConnectionError, redis.TimeoutError, OutOfMemoryError)
"""How Redis says that it cannot serve now, though nothing is wrong with what was asked."""


def unavailable(error: Exception, settings: Settings, doing: str) -> BrokerUnavailable:
    """The error for a Redis that cannot be reached, or is full, without the URL's secrets."""
    if isinstance(error, OutOfMemoryError):
        return BrokerUnavailable(
            f"{doing}: the memory of Redis at {shown(settings.redis_url)} is full (maxmemory); nothing was queued. "
            "What is queued goes on, and frees memory as it ends: come back later"
        )
    return BrokerUnavailable(
        f"{doing}: Redis at {shown(settings.redis_url)} cannot be reached ({error}). "
        "Is it running? 'stoker up' starts one."
    )


def instant(deadline: Deadline | None) -> datetime | None:
    """A deadline as an instant."""
    if deadline is None or isinstance(deadline, datetime):
        return deadline
    if not isinstance(deadline, timedelta):
        deadline = timedelta(seconds=deadline)
    return datetime.now(UTC) + deadline
