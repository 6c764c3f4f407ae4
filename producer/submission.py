"""From jobs to the one write that queues them: what the sync and the async client share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .contract import keys
from .contract.errors import InvalidJob, QueueFull, QuotaExceeded, UnknownModel
from .contract.fleet.settings import Settings
from .contract.fleet.tenants import DEFAULT, Tenant, quoted
from .contract.message import celery_message
from .contract.message.job import Item, Job, shown
from .contract.server.lua import script
from .contract.server.rights import ALL, Rights

LOOK_BYTES, ENTRY_BYTES = 4 * 1024 * 1024, 256
"""Most bytes of messages that ``submit.lua`` looks through for jobs that were submitted before, each message counted
with so many more: some milliseconds of Redis."""

SUBMIT_LUA = script(__package__, "submit.lua")

Deadline = datetime | timedelta | float
"""An instant with a time zone, or how long from now (as a timedelta, or in seconds)."""


CHUNK = 1000
"""Most messages in one call of ``submit.lua``: Redis serves no other client while it runs."""


FULL, OVER_QUOTA = -1, -2
"""What ``submit.lua`` says when it has queued nothing."""
RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
"""When to come back: as fast as the tenant's oldest job got this far, others will make room; within these bounds."""


@dataclass(slots=True)
class QueueWrite:
    """What one call of ``submit.lua`` takes: up to ``CHUNK`` messages for one queue, queued all or none."""

    model: str
    tier: str
    tenant: str
    """Whose lane they go to; empty for the plain list, where stock producers push as well."""
    most: int
    account: Tenant
    """Its quotas."""
    target_s: float
    ids: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job, lane: str, settings: Settings) -> QueueWrite:
        """An empty one for jobs like this."""
        most, account = settings.model(job.model).limits.max_queued, settings.tenant(job.tenant)
        return cls(job.model, job.tier, lane, most, account, settings.tiers[job.tier].target_wait_s)

    @property
    def queue(self) -> str:
        """The queue's name."""
        return keys.queue(self.model, self.tier)

    def add(self, job_id: str, message: bytes, marker: str | None, deadline: datetime | None) -> None:
        """Add a message, and the key that marks it as submitted if it may be submitted again."""
        self.ids.append(job_id)
        due = f"{max(0.0, deadline.timestamp()):017.6f}" if deadline else ""  # as wide as any of our time
        if marker is None:
            self.args += (0, due, message)
        else:
            self.keys.append(marker)
            self.args += (len(self.keys) + 3, due, message)


def plan(jobs: Iterable[Job], settings: Settings) -> tuple[list[str], list[QueueWrite]]:
    """Check and encode jobs: their ids in order, and for each queue its pushes, in order.

    Raises:
        InvalidJob: for the first job that is wrong; then nothing is queued.
    """
    ids: list[str] = []
    pushes: defaultdict[tuple[str, str, str], list[QueueWrite]] = defaultdict(list)
    for job in jobs:
        job_id, message = celery_message.write(job, settings)
        lane = "" if job.tenant == DEFAULT and job.deadline is None else job.tenant
        alike = pushes[job.model, job.tier, lane]
        if not alike or len(alike[-1].ids) == CHUNK:
            alike.append(QueueWrite.of(job, lane, settings))
        marker = keys.submission(job_id) if job.idempotency_key else None
        alike[-1].add(job_id, message, marker, job.deadline)
        ids.append(job_id)
    return ids, [push for alike in pushes.values() for push in alike]


def arguments(push: QueueWrite, settings: Settings, rights: Rights = ALL) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of ``submit.lua``.

    Args:
        rights: of this user of Redis. For one that may not read what is queued, a job counts as gone only when the
            model has no jobs of its tenant at all.
    """
    names = [push.queue, keys.waiting(push.model), keys.lanes(push.model), *push.keys]
    quota = "" if push.account.max_queued is None else push.account.max_queued
    ttl_ms = int(settings.redis.result_ttl_s * 1000)
    queues = "|".join(keys.queue(push.model, tier) for tier in settings.model(push.model).tiers)
    return names, [
        *(push.most, ttl_ms, quoted(push.tenant), quota, push.target_s, keys.result(""), queues, int(rights.reads)),
        *(push.account.queue_share, int(rights.writes)),
        *push.args,
    ]


def confirm(pushes: Sequence[QueueWrite], answers: Sequence[Sequence[Any]]) -> None:
    """Read the answers of ``submit.lua``.

    Raises:
        QueueFull: with what was queued, what was not, and when to come back.
        QuotaExceeded: the same, when all that was refused was its tenant's quota.
    """
    queued: list[str] = []
    refused: list[str] = []
    full: dict[tuple[str, str], str] = {}
    of_tenants, retry_after_s = True, RETRY_S
    for push, (pushed, length, *waited) in zip(pushes, answers, strict=True):
        (refused if pushed < 0 else queued).extend(push.ids)
        if pushed == FULL:
            of_tenants = False
            full[push.queue, ""] = f"queue {push.queue} holds {length} jobs of {push.most} allowed (limits.max_queued)"
        elif pushed == OVER_QUOTA:
            tenant, allowed = push.tenant or DEFAULT, int(waited[1])
            quota = "max_queued" if push.account.max_queued == allowed else "queue_share"
            full[push.queue, tenant] = (
                f"tenant {tenant!r} has {length} jobs in queue {push.queue} of {allowed} allowed "
                f"(tenants.{tenant}.{quota})"
            )
            over = length + len(push.ids) - allowed
            retry_after_s = max(retry_after_s, min(LONGEST_RETRY_S, over * float(waited[0]) / max(length, 1)))
    if refused:
        none = "nothing was queued" if not queued else f"{len(queued)} jobs were queued and {len(refused)} were not"
        raise (QuotaExceeded if of_tenants else QueueFull)(
            f"{'; '.join(full.values())}: {none}, come back in {seconds(retry_after_s)} with what was refused",
            retry_after_s=retry_after_s,
            queued=queued,
            refused=refused,
        )


def seconds(value: float) -> str:
    """Seconds for people."""
    return "a second" if value == 1 else f"{value:.0f} seconds"


def instant(deadline: Deadline | None) -> datetime | None:
    """A deadline as an instant.

    Raises:
        InvalidJob: it is none, or beyond the year 9999.
    """
    if deadline is None or isinstance(deadline, datetime):
        return deadline
    try:
        return datetime.now(UTC) + (deadline if isinstance(deadline, timedelta) else timedelta(seconds=deadline))
    except (TypeError, ValueError, OverflowError):
        allowed = "an instant with a time zone, a timedelta, or seconds from now, before the year 10000"
        raise InvalidJob(f"deadline = {shown('deadline', deadline)}; allowed: {allowed}") from None


def build(
    settings: Settings,
    model: str,
    input: Item | Sequence[Item],
    tier: str | None,
    deadline: Deadline | None,
    fields: Mapping[str, Any],
) -> Job:
    """A job from what a caller gave, with the defaults filled in.

    Raises:
        InvalidJob, UnknownModel, UnknownTier: when no worker could serve it.
    """
    if not isinstance(model, str):
        raise UnknownModel(f"model = {shown('model', model)}; allowed: the name of a model, as text")
    model = settings.named(model)
    given = {name: value for name, value in fields.items() if value is not None}
    return Job.parse(
        {
            "model": model,
            "tier": tier or settings.default_tier(model),
            "input": input,
            "deadline": instant(deadline),
            **given,
        }
    )
