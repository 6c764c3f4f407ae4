"""When a batch runs: at once, or as soon as its head was held for so long.

Holding a job back pays through who joins it: each saves the fixed cost of a batch. A batch held for ``h`` seconds
collects ``1 + r h`` jobs, if ``r`` join per second, and the model, asked for ``R`` jobs per second, then keeps its
device busy for ``R * (per_job + fixed / (1 + r h))`` of the time. Against that stands the share of the target that is
spent on waiting, ``h / slack``; all of it is as dear as ``WORTH`` of a device. The sum is least at

    h = sqrt(slack * fixed * R / r / WORTH) - 1 / r

a square-root law as of lot sizes (F. W. Harris, How many parts to make at once, 1913). So few arrivals, cheap batches
and near deadlines mean no wait, and nobody has a window to tune.

``hold`` is what a worker computes before it claims; ``look_again`` is the rule that it stands for, which
``claim.lua`` evaluates by the server's clock on the queues themselves: what is held stays in Redis, for whoever comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arrivals import Rate
from .cost import Cost

WORTH = 0.25
"""A whole target spent on waiting is as dear as this share of a device."""
SCARCE = 0.1
"""Below this share of busy time, one job at a time, the device is there for who comes: nobody is held."""
LOOK_S = 0.001
"""Nobody looks again sooner than this, except at what is due."""


@dataclass(frozen=True, slots=True)
class Hold:
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
class Waiting:
    """The jobs of one tier that wait: how many, for how many seconds the head was seen waiting, and in how many the
    earliest deadline passes of those that were looked at."""

    jobs: int
    waited_s: float = 0.0
    deadline_s: float = math.inf


def no_hold(tiers: int) -> Hold:
    """For engines whose requests join a running batch: whatever waits is due."""
    return Hold(full=1, hold_s=(0.0,) * tiers)


def hold(cost: Cost, rate: Rate, targets_s: Sequence[float], full: int, busy_s: float = 0.0) -> Hold:
    """How long jobs may be held now.

    Args:
        cost: of a batch; before anything is known of it, nobody is held.
        rate: of all arrivals of the model.
        targets_s: in how many seconds each tier wants its answer.
        full: how many jobs fill a batch.
        busy_s: in how many seconds the device becomes free, 0 when it is.
    """
    if full < 1 or not targets_s:
        raise ValueError(f"full = {full}, targets_s = {targets_s}: at least one each")
    full = _in_time(cost, min(targets_s), full)
    run_s = cost.safe(full)
    hold_s = tuple(_worth(cost, rate, target - run_s) for target in targets_s)
    if min(hold_s) <= 0:  # whoever cannot be held must not find the worker asleep over others either
        hold_s = (0.0,) * len(targets_s)
    per_job_s = 1 / rate.joining_per_s if rate.joining_per_s > 0 else math.inf
    return Hold(full, hold_s, busy_s, run_s, per_job_s)


def _in_time(cost: Cost, target_s: float, full: int) -> int:
    """The largest batch that may run in front of another: both fit into the target."""
    left = target_s / 2 / cost.spread - cost.fixed
    if left >= cost.per_job * full:
        return full
    return max(1, int(left / cost.per_job)) if left > 0 else 1


def _worth(cost: Cost, rate: Rate, slack_s: float) -> float:
    """For how long a head is best held, in seconds."""
    if slack_s <= 0 or rate.joining_per_s <= 0 or rate.per_s * cost.expected(1) < SCARCE:
        return 0.0
    best = math.sqrt(slack_s * cost.fixed * rate.per_s / rate.joining_per_s / WORTH) - 1 / rate.joining_per_s
    return min(max(best, 0.0), slack_s)


def look_again(hold: Hold, waiting: Sequence[Waiting]) -> float:
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
    # A batch may be full before that, and the head of a tier of which none waits yet may be held for less.
    unseen = min((hold_s / 2 for hold_s, tier in zip(hold.hold_s, waiting, strict=True) if not tier.jobs), default=left)
    return min(left, max(LOOK_S, min(max(unseen, hold.busy_s), (hold.full - jobs) * hold.per_job_s)))
