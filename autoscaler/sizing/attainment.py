"""Attainment: the share of a tier's jobs that started within its target lately, from the counters of its queue alone.

Producers' time stamps are untrusted, and the queue's own clock tells of its head only. But a queue is first in, first
out, or nearly: the job that was claimed as its n-th is the one that arrived as its n-th. So jobs claimed since the last
look are late as far as their numbers had arrived a target ago.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY_S = 1800.0
"""Half-life of what is counted, in seconds."""
MARKS = 16
"""Marks of the counter of arrivals that are kept per target; between them it is taken to be a line."""
FEWEST = 20.0
"""Jobs that must have been counted before a share means something."""
MOST = 3.0
"""Largest factor on the headroom."""


@dataclass(frozen=True, slots=True)
class Attainment:
    """What is remembered of one tier. Unix times.

    ``marks`` are (time, jobs that had ever arrived), the newest last and the first from before the target. ``claimed``
    counts the jobs that ever left the queue, ``met`` and ``late`` those of them lately, ``waits_late`` those that wait
    beyond their target now.
    """

    at: float
    marks: tuple[tuple[float, int], ...]
    claimed: int
    met: float = 0.0
    late: float = 0.0
    waits_late: float = 0.0

    def after(self, now: float, arrived: int, queued: int, target_s: float) -> Attainment:
        """The attainment after another reading. A counter that fell was reset, as when the server is emptied."""
        if now < self.at or arrived < self.marks[-1][1]:
            return first(now, arrived, queued)
        claimed = max(self.claimed, arrived - queued)  # a job that comes back was claimed before
        due = self._arrived((self.at + now) / 2 - target_s)
        late = min(max(0.0, due - self.claimed), float(claimed - self.claimed))
        keep = 0.5 ** ((now - self.at) / MEMORY_S)
        marks = self.marks
        if now - marks[-1][0] >= target_s / MARKS:
            old = sum(at <= now - 2 * target_s for at, _ in marks)
            marks = (*marks[max(0, old - 1) :], (now, arrived))
        met = keep * self.met + claimed - self.claimed - late
        return Attainment(now, marks, claimed, met, keep * self.late + late, max(0.0, due - claimed))

    @property
    def share(self) -> float | None:
        """Of the jobs that were claimed lately or wait too long, those that started in time; None of too few."""
        count = self.met + self.late + self.waits_late
        return self.met / count if count >= FEWEST else None

    def _arrived(self, at: float) -> float:
        """Jobs that had arrived at a time, between two marks by a line."""
        before = self.marks[0]
        if at <= before[0]:
            return float(before[1])
        for mark in self.marks[1:]:
            if at < mark[0]:
                share = (at - before[0]) / (mark[0] - before[0])
                return before[1] + share * (mark[1] - before[1])
            before = mark
        return float(before[1])


def first(now: float, arrived: int, queued: int) -> Attainment:
    """The attainment at the first reading of a queue, when nothing is known of earlier jobs."""
    return Attainment(now, ((now, arrived),), arrived - queued)


def headroom_factor(asked: float | None, attained: float | None) -> float:
    """By how much the headroom of a tier is raised: 1 while it attains what is asked, then by the logarithm of how many
    times too many jobs are late, within :data:`MOST`. What no headroom can prevent so costs no more than that."""
    if asked is None or attained is None or attained >= asked:
        return 1.0
    allowed = max(1 - asked, 1e-3)
    return min(MOST, 1 + math.log(max(1.0, (1 - attained) / allowed)))
