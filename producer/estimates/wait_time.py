"""The estimate: when a queued job will start and end, each with an interval, and why it waits.

The queue is modelled as a fluid: the jobs before this one, and those that arrive meanwhile in more urgent tiers, are
served at the replicas' rate. A replica that becomes ready takes as many jobs at once as it has places. What the model
leaves out (different lengths, replicas that come or go) is learned: for each calibration bucket, the quantiles of the
ratio of actual to expected time give the interval. That is conformal prediction (Vovk et al., Algorithmic Learning in a
Random World, 2005) by category, over the latest errors.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

COVERED = 0.9
"""Target share of jobs that start, and end, within their intervals."""
LATEST = 200
"""Errors that are kept for each bucket."""
ENOUGH = 20
"""Errors from which a bucket's quantiles are used."""
SPACING_S = 5.0
"""Seconds between two estimates that are learned from: jobs that wait at the same time have the same error."""
UNTAUGHT = (0.2, 5.0)
"""The ratios of a bucket with fewer errors."""
BLUR_S = 0.05
"""Added to both sides of a ratio, in seconds, so that waits of milliseconds have no extreme ratios."""
LEFT_OVER = 0.1
"""Least share of the replicas' rate for a tier: if more urgent tiers took all of it, replicas would be added."""
TRIAL_SHARE = 0.1
"""Most of a worker's time that suspects take from other jobs."""

Ratios = tuple[float, float]
"""The lower and upper quantile of actual over expected time."""


class Why(StrEnum):
    """Why a job waits."""

    NO_WORKER = "no worker"
    LOADING = "model loading"
    BEHIND = "behind others"
    FULL = "workers are full"
    LEFT = "slots are left to other tiers"
    TRIAL = "a suspect runs alone"
    SHARE = "tenant over its share"
    BATCH = "waiting for a batch"


@dataclass(frozen=True, slots=True)
class Ahead:
    """A tier: how many of its jobs go before this one (of its own tier: those before it in the queue), and its arrivals
    per second."""

    tier: str
    target_wait_s: float
    jobs: int
    arrivals_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an estimate for a job of ``tier`` is made from (``snapshot.py``).

    ``ready_in_s`` has an entry for each replica, 0 for one that serves; ``free`` places are free at those that serve,
    of ``places`` that each has, and ``left`` of these are for other tiers, if its own is preemptible. ``jobs_per_s`` is
    what one replica was measured to do and ``load_s`` how long it took to come up, 0 when not measured; ``run_s`` how
    long a job runs once it was taken. ``suspects`` are queued, each to run alone in a worker. ``blocker`` is what keeps
    the autoscaler from starting a replica, ``over_share`` whether the tenant has had more than its share.
    """

    tier: str
    tiers: Sequence[Ahead]
    ready_in_s: Sequence[float]
    places: int
    free: int = 0
    left: int = 0
    jobs_per_s: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0
    blocker: str = ""
    over_share: bool = False
    batches: bool = False
    suspects: int = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds from now: the expected value, and the bounds that hold with probability ``COVERED``. Infinite where
    unknown."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job starts and ends, why it waits, and the reason in words."""

    tier: str
    starts: Interval
    ends: Interval
    why: Why
    reason: str

    @property
    def kind(self) -> str:
        """The calibration bucket: estimates that are wrong for the same causes, and so learn from each other."""
        return _kind(self.why, self.tier)


@dataclass(slots=True)
class Errors:
    """The errors of earlier estimates: the latest ratios of actual to expected time, by bucket, for starts and ends
    apart."""

    ratios: dict[str, deque[float]] = field(default_factory=dict)
    _told_at: dict[str, float] = field(default_factory=dict)

    def wants(self, told: Estimate, now: float) -> bool:
        """Whether the outcome of an estimate made at ``now`` (seconds by any clock) is to be learned."""
        before = self._told_at.get(told.kind, -math.inf)
        due = now - before >= SPACING_S or now < before  # another clock, as after a restart
        if due:
            self._told_at[told.kind] = now
        return due

    def started(self, told: Estimate, took_s: float) -> None:
        """Learn that a job started ``took_s`` seconds after its estimate."""
        self._learn(told.kind, told.starts.expected, took_s)

    def ended(self, told: Estimate, took_s: float) -> None:
        """Learn that a job ended ``took_s`` seconds after its estimate."""
        self._learn(_end(told.kind), told.ends.expected, took_s)

    def merge(self, told: Mapping[str, Sequence[float]]) -> None:
        """Add the ``ratios`` that an earlier instance has learned. Values that are no ratios are ignored."""
        for kind, found in told.items():
            sound = (ratio for ratio in found if 0 < ratio < math.inf)
            self.ratios.setdefault(kind, deque(maxlen=LATEST)).extend(sound)

    def dumps(self) -> str:
        """As JSON, to be stored at ``keys.estimates``: the latest ratios of each kind."""
        return json.dumps({kind: [round(ratio, 4) for ratio in found] for kind, found in self.ratios.items()})

    @classmethod
    def loads(cls, stored: object) -> Errors:
        """What was learned, from what is stored at ``keys.estimates``; none when nothing is, or in another form."""
        errors = cls()
        if isinstance(stored, bytes):
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                errors.merge(json.loads(stored))
        return errors

    def quantiles(self) -> dict[str, Ratios]:
        """The quantiles of each bucket with enough errors."""
        return {kind: _quantiles(found) for kind, found in self.ratios.items() if len(found) >= ENOUGH}

    def _learn(self, kind: str, foretold_s: float, took_s: float) -> None:
        if math.isfinite(foretold_s):
            ratio = (took_s + BLUR_S) / (foretold_s + BLUR_S)
            self.ratios.setdefault(kind, deque(maxlen=LATEST)).append(ratio)


def estimate(of: Snapshot, learned: Mapping[str, Ratios] | None = None) -> Estimate:
    """The estimate for one job.

    Args:
        learned: what :meth:`Errors.quantiles` says of the model.
    """
    learned = learned or {}
    why, reason = _why(of)
    starts_s = _starts_s(of)
    # Without a known rate it starts no sooner than a replica is ready, and the upper bound is unknown.
    soonest_s = starts_s if math.isfinite(starts_s) else min(of.ready_in_s, default=of.load_s)
    starts_s += of.run_s if _on_trial(of) else 0.0
    kind = _kind(why, of.tier)
    starts = _interval(starts_s, soonest_s, learned.get(kind, UNTAUGHT))
    ends = _interval(starts_s + of.run_s, soonest_s + of.run_s, learned.get(_end(kind), learned.get(kind, UNTAUGHT)))
    return Estimate(of.tier, starts, ends, why, reason)


def _kind(why: Why, tier: str) -> str:
    """A tenant over its share waits behind others: its estimate differs in the number of these alone. The autoscaler,
    which learns from whole queues, sees no tenant, and would never fill a bucket for it."""
    return f"{Why.BEHIND if why is Why.SHARE else why}, {tier}"


def _end(kind: str) -> str:
    return f"{kind}: end"


def _interval(expected: float, soonest: float, ratios: Ratios) -> Interval:
    low, high = (
        (seconds + BLUR_S) * ratio - BLUR_S for seconds, ratio in zip((soonest, expected), ratios, strict=True)
    )
    return Interval(expected, max(0.0, low), max(0.0, high))


def _on_trial(of: Snapshot) -> bool:
    """Whether each worker may be running a suspect: then none takes this job before that has ended."""
    return of.suspects >= sum(ready_in_s <= 0 for ready_in_s in of.ready_in_s) > 0


def _starts_s(of: Snapshot) -> float:
    """Seconds until enough places have come free for the jobs before this one and itself."""
    urgent = _urgent(of)
    free = max(0, of.free - of.left)
    left = 1.0 + sum(tier.jobs for tier in urgent) - free
    if free and left <= 0:
        return 0.0
    joining = sum(tier.arrivals_per_s for tier in urgent if tier.tier != of.tier)
    coming = sorted(of.ready_in_s) or [of.load_s or math.inf]
    one_does = of.jobs_per_s * (1 - TRIAL_SHARE if of.suspects else 1)
    now, serving = 0.0, 0
    for nth, ready_in_s in enumerate([*coming, math.inf]):
        rate = max(one_does * serving - joining, LEFT_OVER * one_does * serving)
        if rate > 0 and now + left / rate <= ready_in_s:
            return now + left / rate
        if nth == len(coming) or ready_in_s == math.inf:
            break
        left -= rate * (ready_in_s - now)
        now, serving = ready_in_s, serving + 1
        if ready_in_s > 0:
            left -= of.places
            if left <= 0:
                return now
    return math.inf


def _urgent(of: Snapshot) -> list[Ahead]:
    """The tiers whose jobs go first: its own, and those with shorter targets."""
    target_s = next(tier.target_wait_s for tier in of.tiers if tier.tier == of.tier)
    return [tier for tier in of.tiers if tier.tier == of.tier or tier.target_wait_s < target_s]


def _why(of: Snapshot) -> tuple[Why, str]:
    serving = sum(ready_in_s <= 0 for ready_in_s in of.ready_in_s)
    if not of.ready_in_s:
        return Why.NO_WORKER, of.blocker or "no worker of the model runs yet; the autoscaler starts one"
    if not serving:
        if not of.load_s:
            return Why.LOADING, "the model is loading; how long that takes was not measured yet"
        return Why.LOADING, f"the model is loading, for about {max(0.0, min(of.ready_in_s)):.0f} s more"
    before = [tier for tier in _urgent(of) if tier.jobs]
    if before:
        jobs = " and ".join(f"{tier.jobs} {'job' if tier.jobs == 1 else 'jobs'} of tier {tier.tier}" for tier in before)
        if of.over_share:
            return Why.SHARE, f"its tenant has had more than its share; behind {jobs}"
        return Why.BEHIND, f"behind {jobs}"
    if _on_trial(of):
        jobs = "1 suspect runs" if of.suspects == 1 else f"{of.suspects} suspects run one by one,"
        return Why.TRIAL, f"the next to start: {jobs} alone, in at most a tenth of a worker's time"
    if of.free and of.batches:
        return Why.BATCH, "the next, as soon as its batch is worth running"
    if 0 < of.free <= of.left:
        return Why.LEFT, "the next to start: the slots that are free are left to the tiers that do not give way"
    full = f"{'the worker is' if serving == 1 else f'all {serving} workers are'} full"
    return Why.FULL, f"the next to start: {full}"


def _quantiles(ratios: Iterable[float]) -> Ratios:
    """The quantiles of n errors: the next error falls into each of the n + 1 gaps with equal probability."""
    found = sorted(ratios)
    outside = round((1 - COVERED) / 2 * (len(found) + 1))
    return found[max(0, outside - 1)], found[min(len(found) - 1, len(found) - outside)]
