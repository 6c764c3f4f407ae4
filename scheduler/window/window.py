"""When a batch runs: at once, or as soon as its head was held for so long.

Holding a job back pays through who joins it: each saves the fixed cost of a batch. A batch held for ``h`` seconds
collects ``1 + r h`` jobs, if ``r`` join per second, and the model, asked for ``R`` jobs per second, then keeps its
device busy for ``R * (per_job + fixed / (1 + r h))`` of the time. Against that stands the share of the target that is
spent on waiting, ``h / slack``; all of it is as dear as ``WORTH`` of a device. The sum is least at

    h = sqrt(slack * fixed * R / r / WORTH) - 1 / r

a square-root law as of lot sizes (F. W. Harris, How many parts to make at once, 1913). So few arrivals, cheap batches
and near deadlines mean no wait, and nobody has a window to tune.

``law`` is that; how much of it the target bears is seen in hindsight (``hindsight.py``), and ``learned_window.py``
puts both together. ``look_again`` is the rule that a ``HoldLimits`` stands for, which ``claim.lua`` evaluates by the
server's
clock on the queues themselves: what is held stays in Redis, for whoever comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arrivals import Rate
from .batch_cost import Cost

WORTH = 0.25
"""A whole target spent on waiting is as dear as this share of a device."""
SCARCE = 0.1
"""Below this share of busy time, one job at a time, the device is there for whoever comes, and is not spared."""
LOOK_S = 0.001
"""Nobody looks again sooner than this, except at what is due."""


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How long jobs may be held.

    ``full`` jobs waiting are due at once, over all tiers; ``hold_s`` is for how many seconds the head of each tier
    may wait, from when it was first seen. Before ``busy_s`` have passed the device is not free, and only a full
    batch is due. A job with a deadline of its own is due ``run_s`` before it. ``per_job_s`` is in how many seconds
    another job is expected, so that who waits knows when to look again.
    """

    full: int
    hold_s: tuple[float, ...]
    busy_s: float = 0.0
    run_s: float = 0.0
    per_job_s: float = math.inf


@dataclass(frozen=True, slots=True)
class TierQueue:
    """The jobs of one tier that wait: how many, for how many seconds the head was seen waiting, and in how many the
    earliest deadline passes of those that were looked at."""

    jobs: int
    waited_s: float = 0.0
    deadline_s: float = math.inf


def no_hold(tiers: int) -> HoldLimits:
    """For engines whose requests join a running batch: whatever waits is due."""
    return HoldLimits(full=1, hold_s=(0.0,) * tiers)


def hold(cost: Cost, hold_s: Sequence[float], full: int, rate: Rate, busy_s: float = 0.0) -> HoldLimits:
    """The hold of a model whose tiers may be held for so long; of any of them, none is worth more than it costs.

    Args:
        cost: of a batch.
        hold_s: for how long the head of each tier may wait.
        full: how many jobs run at once, without a hold.
        rate: of all arrivals of the model.
        busy_s: in how many seconds the device becomes free, 0 when it is.
    """
    if min(hold_s) <= 0:  # whoever cannot be held must not find the worker asleep over others either
        hold_s = [0.0] * len(hold_s)
    per_job_s = 1 / rate.joining_per_s if rate.joining_per_s > 0 else math.inf
    return HoldLimits(full, tuple(hold_s), busy_s, cost.safe(full), per_job_s)


def slack(cost: Cost, rate: Rate, target_s: float, full: int) -> float:
    """For how long a head can be held and still be answered within its target, with all who join it: in seconds."""
    with_company = (target_s - cost.safe(1)) / (1 + cost.spread * cost.per_job * rate.joining_per_s)
    return max(0.0, with_company, target_s - cost.safe(full))


def law(cost: Cost, rate: Rate, slack_s: float, full: int) -> float:
    """For how long a head is best held, in seconds, where devices are dear; 0 when nothing is known.

    From half load on it becomes less, down to nothing at full load: batches fill by themselves then, and what a device
    spends waiting is missing in the next burst.
    """
    if slack_s <= 0 or rate.joining_per_s <= 0:
        return 0.0
    best = math.sqrt(slack_s * cost.fixed * rate.per_s / rate.joining_per_s / WORTH) - 1 / rate.joining_per_s
    spare = 1 - rate.per_s * cost.expected(full) / full
    return min(max(best, 0.0), slack_s) * min(max(2 * spare, 0.0), 1.0)


def scarce(cost: Cost, rate: Rate) -> bool:
    """Whether so little is asked for that a device is there for whoever comes."""
    return rate.per_s * cost.expected(1) < SCARCE


def look_again(hold: HoldLimits, waiting: Sequence[TierQueue]) -> float:
    """In how many seconds to look again, from now; 0 means that what waits is due, as many as there is room for.

    ``waiting`` has one entry for each tier, in the order of ``hold_s``. Infinite when nothing waits.
    """
    jobs = sum(tier.jobs for tier in waiting)
    if jobs == 0:
        return math.inf
    if jobs >= hold.full:
        return 0.0
    left = min(
        min(hold_s - tier.waited_s, tier.deadline_s - hold.run_s)
        for hold_s, tier in zip(hold.hold_s, waiting, strict=True)
        if tier.jobs
    )
    left = max(left, hold.busy_s)
    if left <= 0:
        return 0.0
    # A batch may be full before that, and the head of a tier of which none waits yet may be held for less. To look when
    # twice as much time has passed costs little, and tells in hindsight how the arrivals lay.
    unseen = min((hold_s / 2 for hold_s, tier in zip(hold.hold_s, waiting, strict=True) if not tier.jobs), default=left)
    waited = max(tier.waited_s for tier in waiting if tier.jobs)
    return min(left, max(LOOK_S, min(waited, max(unseen, hold.busy_s), (hold.full - jobs) * hold.per_job_s)))
