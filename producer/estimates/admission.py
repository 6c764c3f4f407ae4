"""Admission: whether a job whose deadline may be out of reach is queued, and on which tier.

A deadline counts as out of reach when the whole interval of the estimate lies behind it: a job refused in error is
lost, one accepted in error only expires. Until a model was measured no deadline is out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

from ..contract.errors import DeadlineUnreachable, InvalidJob
from ..contract.fleet.settings import Settings
from ..contract.message.job import Job, shown
from .wait_time import Estimate

Admission = Literal["accept", "refuse", "degrade"]
"""What becomes of a job whose deadline is out of reach.

``accept``: it is queued anyway, and expires if it is late; no estimate is made. ``refuse``: it is not queued, and the
error gives the earliest possible time. ``degrade``: it goes to the next lower tier without a deadline, where it delays
no job that is still in time; on its model's lowest tier it only loses its deadline.
"""
FARTHEST_S = 365 * 86400.0
"""Largest time that errors name, in seconds."""
RETRY_S = 1.0
"""Least value of ``retry_after_s``, in seconds."""


def concerns(job: Job, admission: Admission) -> bool:
    """Whether an estimate is needed to admit the job.

    Raises:
        InvalidJob: no such admission; with those that exist.
    """
    if admission not in get_args(Admission):
        raise InvalidJob(f"admission = {shown('admission', admission)}; allowed: {', '.join(get_args(Admission))}")
    return admission != "accept" and job.deadline is not None


def admit(
    job: Job,
    told: Estimate | None,
    admission: Admission,
    now: datetime,
    settings: Settings,
    tiers: Sequence[str] | None = None,
) -> Job:
    """The job as it is to be queued.

    Args:
        told: the estimate for the job if it is queued as it is at ``now``; None when there is none.
        tiers: tiers that it may be degraded to; by default all of its model.

    Raises:
        DeadlineUnreachable: as asked with ``refuse``.
    """
    if told is None or job.deadline is None or admission == "accept":
        return job
    soonest_s, left_s = min(told.ends.low, FARTHEST_S), (job.deadline - now).total_seconds()
    if soonest_s <= left_s:
        return job
    if admission == "degrade":
        lower = _lower(job.tier, settings.model(job.model).tiers if tiers is None else tiers, settings)
        return job.model_copy(update={"tier": lower, "deadline": None})
    earliest, retry_after_s = now + timedelta(seconds=soonest_s), max(RETRY_S, soonest_s - left_s)
    left = f"in {left_s:.1f} s" if left_s > 0 else f"{-left_s:.1f} s ago"
    expected = f", probably in {told.ends.expected:.1f} s" if told.ends.expected < FARTHEST_S else ""
    raise DeadlineUnreachable(
        f"the deadline {_instant(job.deadline)} ({left}) is out of reach: a job that is queued now at "
        f"{job.model}.{job.tier} ends at {_instant(earliest)} at the earliest, in {soonest_s:.1f} s{expected}; "
        f"{told.reason}. Nothing was queued: give it until then, come back in {retry_after_s:.0f} s, or ask for "
        'admission "degrade" to have it late',
        earliest=earliest,
        retry_after_s=retry_after_s,
    )


def _lower(tier: str, tiers: Sequence[str], settings: Settings) -> str:
    """The next tier with a longer target; the same tier if there is none."""
    target_s = {each: settings.tiers[each].target_wait_s for each in (*tiers, tier)}
    return min((each for each in target_s if target_s[each] > target_s[tier]), key=target_s.__getitem__, default=tier)


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
