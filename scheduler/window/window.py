"""The batch window: when a batch runs, at once or after its head was held for some time.

Each job that joins a held batch saves the fixed cost of a batch. A batch held for ``h`` seconds collects ``1 + r h``
jobs, if ``r`` join per second, and a model with ``R`` arrivals per second keeps its device busy for ``R * (per_job +
fixed / (1 + r h))`` of the time. The hold uses up the share ``h / slack`` of the target; a whole target is valued at
``WORTH`` of a device. The sum is least at

    h = sqrt(slack * fixed * R / r / WORTH) - 1 / r

a square-root law, as for lot sizes (F. W. Harris, How many parts to make at once, 1913). Few arrivals, cheap batches or
near deadlines give no hold, without any setting.

``law`` is this formula; hindsight (``hindsight.py``) limits it by what the target allows, and ``learned_window.py``
combines both. ``look_again`` is the rule behind ``HoldLimits``; ``claim.lua`` evaluates it by the server's clock on the
queues themselves: held jobs stay in Redis, where any worker can take them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .arrivals import Rate
from .batch_cost import Cost

WORTH = 0.25
"""Value of a whole target spent on waiting, as a share of a device. Chosen on ``benchmarks.window``, seeds 1 and 2."""
SCARCE = 0.1
"""Utilisation (with batches of one job) below which device time is not worth saving and nothing is held."""
LOOK_S = 0.001
"""Least time before the queues are checked again, in seconds."""


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How long jobs may be held.

    A batch is due as soon as ``full`` jobs are queued, over all tiers. ``hold_s`` is how long the jobs of each tier may
    be held, from when its queue ceased to be empty. Until the device is free, in ``busy_s`` seconds, only a full batch
    is due. A job with a deadline of its own is due ``run_s`` before it. ``per_job_s`` is the expected time to the next
    arrival, which tells when to check again.
    """

    full: int
    hold_s: tuple[float, ...]
    busy_s: float = 0.0
    run_s: float = 0.0
    per_job_s: float = math.inf


@dataclass(frozen=True, slots=True)
class TierQueue:
    """The queued jobs of one tier: their number, the seconds since it ceased to be empty, and the seconds to the
    earliest deadline among them."""

    jobs: int
    waited_s: float = 0.0
    deadline_s: float = math.inf


def no_hold(tiers: int) -> HoldLimits:
    """The limits for engines whose requests join a running batch: every queued job is due."""
    return HoldLimits(full=1, hold_s=(0.0,) * tiers)


def hold(cost: Cost, hold_s: Sequence[float], full: int, rate: Rate, busy_s: float = 0.0) -> HoldLimits:
    """The hold limits of a model.

    Args:
        cost: of a batch.
        hold_s: how long the head of each tier may be held, in seconds.
        full: jobs that fill a batch.
        rate: of the model's arrivals.
        busy_s: seconds until the device is free; 0 when it is.
    """
    if min(hold_s) <= 0:  # a tier that cannot be held must not wait for a worker that holds other tiers
        hold_s = [0.0] * len(hold_s)
    per_job_s = 1 / rate.joining_per_s if rate.joining_per_s > 0 else math.inf
    return HoldLimits(full, tuple(hold_s), busy_s, cost.safe(full), per_job_s)


def slack(cost: Cost, rate: Rate, target_s: float, full: int) -> float:
    """How long a head can be held and still be answered within its target, with its expected batch-mates, in
    seconds."""
    with_company = (target_s - cost.safe(1)) / (1 + cost.spread * cost.per_job * rate.joining_per_s)
    return max(0.0, with_company, target_s - cost.safe(full))


def law(cost: Cost, rate: Rate, slack_s: float, full: int) -> float:
    """The hold with the least cost, in seconds; 0 before anything was measured.

    From half load on it shrinks, to nothing at full load: batches then fill by themselves, and the time a device spends
    waiting is missing in the next burst.
    """
    if slack_s <= 0 or rate.joining_per_s <= 0:
        return 0.0
    best = math.sqrt(slack_s * cost.fixed * rate.per_s / rate.joining_per_s / WORTH) - 1 / rate.joining_per_s
    spare = 1 - rate.per_s * cost.expected(full) / full
    return min(max(best, 0.0), slack_s) * min(max(2 * spare, 0.0), 1.0)


def scarce(cost: Cost, rate: Rate) -> bool:
    """Whether utilisation is so low that device time need not be saved."""
    return rate.per_s * cost.expected(1) < SCARCE


def look_again(hold: HoldLimits, waiting: Sequence[TierQueue]) -> float:
    """Seconds until the queues are to be checked again; 0 when a batch is due, infinite when nothing is queued.

    ``waiting`` has one entry for each tier, in the order of ``hold_s``.
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
    # A batch may be full before that, and a job of a tier that is empty now may be held for less. Checking at doubling
    # intervals costs little, and shows hindsight how the arrivals were spread.
    unseen = min((hold_s / 2 for hold_s, tier in zip(hold.hold_s, waiting, strict=True) if not tier.jobs), default=left)
    waited = max(tier.waited_s for tier in waiting if tier.jobs)
    return min(left, max(LOOK_S, min(waited, max(unseen, hold.busy_s), (hold.full - jobs) * hold.per_job_s)))
