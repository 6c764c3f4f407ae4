"""``stoker status --job``: the state of a job, its place in the queue, and its estimate."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from producer.contract.message.job import Status

from .duration import duration
from .printable import printable

if TYPE_CHECKING:
    from producer.estimates.queued_job import Waiting
    from producer.estimates.wait_time import Interval


def text_of(job_id: str, found: Waiting) -> str:
    """The job's state, place and estimate as text."""
    job = printable(job_id)
    if found.status is Status.RUNNING:
        return f"{job} is running on a worker of {found.model}"
    if found.status is not Status.QUEUED:
        return f"{job} has ended: {found.status}"
    if found.estimate is None:
        return (
            f"{job} is in no queue and on no worker: claimed within the last second, never submitted, or ended so long "
            "ago that its result has expired"
        )
    place = f"{found.ahead} {'job' if found.ahead == 1 else 'jobs'} before it"
    place = place if found.exact else f"at most {place}"
    return "\n".join(
        (
            f"{job} is queued at {found.model}.{found.tier}, {place}",
            f"  waits    {printable(found.estimate.reason)}",
            f"  starts   {_in(found.estimate.starts)}",
            f"  ends     {_in(found.estimate.ends)}",
        )
    )


def json_of(job_id: str, found: Waiting) -> str:
    """The job's state, place and estimate as JSON; times are seconds from now, and null when unknown."""
    return json.dumps({"job": job_id, **_finite(asdict(found))})


def _in(interval: Interval) -> str:
    if math.isinf(interval.expected):
        return f"in {duration(interval.low)} at the earliest; the speed of its workers is not measured yet"
    return (
        f"in {duration(interval.expected)}, nine times in ten in {duration(interval.low)} to {duration(interval.high)}"
    )


def _finite(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return {
        key: _finite(of) if isinstance(of, dict) else None if isinstance(of, float) and math.isinf(of) else of
        for key, of in value.items()
    }
