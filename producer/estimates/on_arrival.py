"""The estimate for a job that would be queued now: the commands it needs, and their replies, for either kind of client.

What cannot be known without reading the queues counts in the job's favour: see :func:`_place`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..contract import keys
from ..contract.fleet.settings import Settings
from ..contract.fleet.tenants import DEFAULT
from ..contract.heartbeat import Heartbeat
from ..contract.message.job import Job
from .snapshot import Place, ask_lengths, lengths, read_snapshot
from .wait_time import Errors, Estimate, estimate


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that may be queued at ``now``."""

    job: Job
    settings: Settings
    now: datetime

    def ask(self, pipe: Any) -> None:
        """Add the commands whose replies :meth:`read` takes to a pipeline; errors must come as replies."""
        job = self.job
        pipe.get(keys.submission(job.id))
        pipe.get(keys.sizes())
        pipe.get(keys.estimates(job.model))
        pipe.llen(self._undated)
        pipe.zcard(dated := keys.dated(job.model, job.tier, job.tenant))
        pipe.zcount(dated, "-inf", job.deadline.timestamp() if job.deadline else "-inf")
        pipe.zcard(keys.counters(job.model, job.tier))
        pipe.scard(keys.entrants(job.model, job.tier))
        ask_lengths(pipe, self.settings, job.model)

    def read(self, replies: Sequence[Any], beats: Sequence[Heartbeat]) -> Estimate | None:
        """The job's estimate; None when it was submitted before, with the same idempotency key."""
        submitted, sizes, errors, *counts = replies
        if isinstance(submitted, bytes):
            return None
        *own, known, entrants = (count if isinstance(count, int) else 0 for count in counts[:5])
        place = self._place(own, known + entrants, lengths(counts[5:]))
        found = read_snapshot(self.now.timestamp(), sizes, self.settings, self.job.model, place, beats)
        return estimate(found, Errors.loads(errors).quantiles())

    def _place(self, own: Sequence[int], tenants: int, waiting: Sequence[int]) -> Place:
        """The place it would have.

        A job with a deadline earlier than its tier's target goes before its tenant's others, and before other tiers
        that are due later. About as many jobs of other tenants go before it as of its own.
        """
        job = self.job
        undated, dated, due_before = own
        target_s = self.settings.tiers[job.tier].target_wait_s
        by_deadline = job.deadline is not None and (job.deadline - self.now).total_seconds() < target_s
        before = due_before if by_deadline else undated + dated
        others = waiting[self.settings.model(job.model).tiers.index(job.tier)] - undated - dated
        ahead = before + min(max(0, others), before * max(1, tenants))
        return Place(job.tier, ahead, waiting, exact=False, by_deadline=by_deadline)

    @property
    def _undated(self) -> str:
        """The key of the list of its tenant's jobs without a deadline."""
        job = self.job
        if job.tenant == DEFAULT:
            return keys.queue(job.model, job.tier)
        return keys.lane(job.model, job.tier, job.tenant)
