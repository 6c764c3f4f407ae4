"""From jobs to the one write that queues them: what the sync and the async client share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

from . import envelope, keys
from .errors import BrokerUnavailable, QueueFull
from .job import Job
from .settings import Settings
from .trouble import trouble

SUBMIT_LUA = files(__package__).joinpath("submit.lua").read_text()
CANCEL_LUA = files(__package__).joinpath("cancel.lua").read_text()

Deadline = datetime | timedelta | float
"""An instant with a time zone, or how long from now (as a timedelta, or in seconds)."""


CHUNK = 1000
"""Most messages in one call of ``submit.lua``: Redis serves nobody else while it runs."""


@dataclass(slots=True)
class Push:
    """What one call of ``submit.lua`` takes: up to ``CHUNK`` messages for one queue, queued all or none."""

    queue: str
    waiting: str
    most: int
    ids: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)

    def add(self, job_id: str, message: bytes, marker: str | None) -> None:
        """Add a message, and the key that marks it as submitted if it may be submitted again."""
        self.ids.append(job_id)
        if marker is None:
            self.args += (0, message)
        else:
            self.keys.append(marker)
            self.args += (len(self.keys) + 2, message)


def plan(jobs: Iterable[Job], settings: Settings) -> tuple[list[str], list[Push]]:
    """Check and encode jobs: their ids in order, and for each queue its pushes, in order.

    Raises:
        InvalidJob: for the first job that is wrong; then nothing is queued.
    """
    ids: list[str] = []
    pushes: defaultdict[tuple[str, str], list[Push]] = defaultdict(list)
    for job in jobs:
        envelope.check(job, settings)
        job_id = job.id
        message = envelope.encode(job, job_id)
        envelope.check_size(message, job, settings)
        of_queue = pushes[job.model, job.tier]
        if not of_queue or len(of_queue[-1].ids) == CHUNK:
            most = settings.model(job.model).limits.max_queued
            of_queue.append(Push(keys.queue(job.model, job.tier), keys.waiting(job.model), most))
        of_queue[-1].add(job_id, message, keys.submission(job_id) if job.idempotency_key else None)
        ids.append(job_id)
    return ids, [push for of_queue in pushes.values() for push in of_queue]


def arguments(push: Push, settings: Settings) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of ``submit.lua``."""
    return [push.queue, push.waiting, *push.keys], [push.most, int(settings.redis.result_ttl_s * 1000), *push.args]


def confirm(pushes: Sequence[Push], answers: Sequence[Sequence[int]]) -> None:
    """Read the answers of ``submit.lua``.

    Raises:
        QueueFull: with what was queued, what was not, and when to come back.
    """
    queued: list[str] = []
    refused: list[str] = []
    full: dict[str, str] = {}
    for push, (pushed, length) in zip(pushes, answers, strict=True):
        (refused if pushed < 0 else queued).extend(push.ids)
        if pushed < 0:
            full[push.queue] = f"queue {push.queue} holds {length} jobs of {push.most} allowed (limits.max_queued)"
    if refused:
        none = "nothing was queued" if not queued else f"{len(queued)} jobs were queued and {len(refused)} were not"
        raise QueueFull(
            f"{'; '.join(full.values())}: {none}, come back in a second with what was refused",
            retry_after_s=1.0,
            queued=queued,
            refused=refused,
        )


def unavailable(error: Exception, settings: Settings, doing: str) -> BrokerUnavailable:
    """The error for a Redis that cannot be reached, or is full, without the URL's secrets."""
    return BrokerUnavailable(f"{doing}: {trouble(error, settings)}")


def instant(deadline: Deadline | None) -> datetime | None:
    """A deadline as an instant."""
    if deadline is None or isinstance(deadline, datetime):
        return deadline
    if not isinstance(deadline, timedelta):
        deadline = timedelta(seconds=deadline)
    return datetime.now(UTC) + deadline
