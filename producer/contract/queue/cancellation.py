"""Cancelling jobs, within the rights of the caller.

Who may not write results leaves that to the autoscaler: it says which jobs it has cancelled, and the autoscaler, which
waits for that, fixes their results. A producer can therefore cancel a job whose id it knows, and answer none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import keys
from ..fleet.settings import Settings
from ..message import celery_message
from ..server.dialogue import Dialogue, evaluated
from ..server.lua import script

CANCEL_LUA = script(__package__, "cancel.lua")

LONGEST_ID = 256
"""Most characters of an id that the autoscaler takes for one; Celery's and ours have 36."""


def cancel_all(settings: Settings, job_ids: Iterable[str], *, writes: bool) -> Dialogue[list[str]]:
    """Cancel the jobs that have not ended; returns these.

    Args:
        writes: whether to fix their results, rather than have the autoscaler do it.

    Raises:
        redis.RedisError: Redis is away, or refuses.
    """
    ids = list(job_ids)
    done = yield from evaluated(CANCEL_LUA, [_arguments(settings, job_id, writes) for job_id in ids])
    for reply in done:
        if isinstance(reply, Exception):
            raise reply
    return [job_id for job_id, is_new in zip(ids, done, strict=True) if is_new]


def readable(told: Iterable[bytes]) -> list[str]:
    """The ids among what producers say that they have cancelled, which may be anything."""
    found = (each.decode(errors="replace") for each in told)
    return [
        job_id for job_id in found if 0 < len(job_id) <= LONGEST_ID and job_id.isprintable() and "\ufffd" not in job_id
    ]


def _arguments(settings: Settings, job_id: str, writes: bool) -> tuple[list[str], list[Any]]:
    ttl_ms = int(settings.redis.result_ttl_s * 1000)
    names = [keys.result(job_id), keys.cancelled(), keys.withdrawals(), keys.cancellations()]
    return names, [job_id, celery_message.cancelled_meta(job_id) if writes else "", ttl_ms]
