"""Hindsight: the share of jobs that would have been late under each other window.

The law of ``window.py`` says how long a hold is worth; hindsight says how long it may be. Near a target, or under
bursts, no formula of rates tells that: a hold may push the jobs behind it over the target, and a short hold may bring a
burst into its target whose first job would otherwise have run alone and kept the rest waiting. So every candidate
window runs in shadow over the observed arrivals with the learned cost, as ghost lists do for cache sizes (N. Megiddo
and D. Modha, ARC, 2003).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from .batch_cost import SLOW, Cost

MEMORY_JOBS = 10_000
"""Constant of the exponential weights, in jobs."""
SHORTEST_S = 0.001
STEP = 2 ** (1 / 3)
TRIED = 12
"""Candidate windows beside none: the longest ones among the powers of ``STEP`` times ``SHORTEST_S``."""
TOLERATED = 0.0005
"""Difference in the share of late jobs up to which a window counts as good as the best."""


@dataclass(slots=True)
class _Shadow:
    """The state of one candidate window."""

    jobs: float = 0.0
    harm: float = 0.0
    """Late jobs, plus a part of those that would be late in a slow batch."""
    free_at: float = 0.0
    """When its simulated device becomes free."""
    left: list[float] = field(default_factory=list)
    """Arrival times of the jobs that have not run yet."""


class Hindsight:
    """The candidate windows for one target, in seconds."""

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self._shadows: dict[float, _Shadow] = {}
        self._good: list[float] = []

    def look(self, came: Sequence[float], now: float, cost: Cost, full: int, longest_s: float) -> None:
        """Replay the arrivals since the last call under every candidate window.

        Args:
            came: arrival times in seconds by one clock, in order: all since the last call, or since a gap.
            now: the time up to which ``came`` is complete.
            cost: of a batch.
            full: jobs that fill a batch.
            longest_s: the longest candidate.
        """
        shadows = {hold_s: self._shadows.get(hold_s) or self._begun() for hold_s in windows(longest_s)}
        seconds = [cost.expected(jobs) for jobs in range(full + 1)]
        keep = math.exp(-len(came) / MEMORY_JOBS)
        for hold_s, shadow in shadows.items():
            shadow.jobs *= keep
            shadow.harm *= keep
            _run(shadow, came, now, hold_s, seconds, cost.spread, self.target_s)
        self._shadows = shadows
        shares = {hold_s: shadow.harm / max(1.0, shadow.jobs) for hold_s, shadow in shadows.items()}
        best = min(shares.values())
        self._good = [hold_s for hold_s, share in shares.items() if share <= best + TOLERATED]

    def within(self, worth_s: float) -> float:
        """The longest window up to ``worth_s`` that is as good as the best, or the shortest such window if all are
        longer.

        0 before anything was observed.
        """
        next_longer = min((hold_s for hold_s in self._shadows if hold_s >= worth_s), default=math.inf)
        if next_longer in self._good:
            return worth_s
        return max((hold_s for hold_s in self._good if hold_s <= worth_s), default=min(self._good, default=0.0))

    def _begun(self) -> _Shadow:
        """A new candidate, with the past of the candidate without a window."""
        none = self._shadows.get(0.0) or _Shadow()
        return _Shadow(none.jobs, none.harm, none.free_at, list(none.left))


def windows(longest_s: float) -> list[float]:
    """The candidate windows: none, and powers of ``STEP``."""
    most = math.floor(math.log(longest_s / SHORTEST_S, STEP)) if longest_s >= SHORTEST_S else -1
    return [0.0, *(SHORTEST_S * STEP**power for power in range(max(0, most - TRIED + 1), most + 1))]


def _run(
    shadow: _Shadow,
    came: Sequence[float],
    now: float,
    hold_s: float,
    seconds: Sequence[float],
    spread: float,
    target_s: float,
) -> None:
    """Add arrivals to a candidate and run the batches that are due until ``now``.

    Batches take their expected time. A job that is late only in a slow batch counts with the share of slow batches.

    Args:
        seconds: of a batch, by its number of jobs.
    """
    jobs = [*shadow.left, *came]
    full = len(seconds) - 1
    at, free_at, late, late_if_slow = 0, shadow.free_at, 0, 0
    while at < len(jobs):
        due = jobs[at] + hold_s
        if at + full <= len(jobs):
            due = min(due, jobs[at + full - 1])
        due = max(due, free_at)
        if due > now:
            break
        last = bisect_right(jobs, due, at, min(at + full, len(jobs)))
        free_at = due + seconds[last - at]
        late += bisect_left(jobs, free_at - target_s, at, last) - at
        late_if_slow += bisect_left(jobs, due + spread * seconds[last - at] - target_s, at, last) - at
        at = last
    shadow.jobs += at
    shadow.harm += late + SLOW * (late_if_slow - late)
    shadow.free_at, shadow.left = free_at, jobs[at:]
