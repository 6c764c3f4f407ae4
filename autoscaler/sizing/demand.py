"""Demand: the jobs that a model is asked for, and the replicas it has for them, at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.contract.fleet.reserved_slots import left_to_others

from ..roster import Phase, Worker
from .attainment import Attainment, first

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings
    from scheduler.queue_lengths import ModelQueues

WINDOW_S = 10.0
"""Window over which arrivals are counted, in seconds."""
BY_TYPE = "jobs_per_s:"
"""Prefix of measured rates by device type."""


@dataclass(frozen=True, slots=True)
class TierDemand:
    """One tier of a model.

    ``waited_s`` is how long its next job has been passed over, by the server's clock: the producer's time stamp is
    untrusted. Arrivals are in jobs per second.
    """

    tier: str
    target_wait_s: float
    queued: int = 0
    waited_s: float = 0.0
    arrivals_per_s: float = 0.0
    arrived: int = 0
    """Jobs that ever arrived."""
    attain: float | None = None
    """Share of jobs that should start within the target; None if nothing is asked."""
    attained: float | None = None
    """Share that did lately; None if it is not known."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand for one model.

    ``suspects`` wait to be run alone, since ``suspects_waited_s`` seconds, and are as urgent as the fastest tier.
    ``jobs_per_s`` is the measured rate of one replica, ``load_s`` its load time; 0 means not measured yet. ``quiet_s``
    is for how many seconds nothing was queued, running or arriving.
    """

    model: str
    tiers: tuple[TierDemand, ...] = ()
    running: int = 0
    quiet_s: float = 0.0
    jobs_per_s: float = 0.0
    load_s: float = 0.0
    free_slots: int = 0
    phases: Mapping[Phase, int] = field(default_factory=dict)
    suspects: int = 0
    suspects_waited_s: float = 0.0
    speeds: Mapping[str, float] = field(default_factory=dict)
    """Measured jobs per second of one replica, by device type."""
    left: int = 0
    """Reserved slots of each replica."""
    run_s: float = 0.0
    """Measured seconds from a job's claim to its end; 0 when not measured."""

    @property
    def queued(self) -> int:
        """Queued jobs of all tiers, suspects included."""
        return sum(tier.queued for tier in self.tiers) + self.suspects

    @property
    def arrivals_per_s(self) -> float:
        """Arrivals, over all tiers."""
        return sum(tier.arrivals_per_s for tier in self.tiers)

    @property
    def none(self) -> bool:
        """Whether nothing is queued, running or arriving."""
        return self.queued == 0 and self.running == 0 and self.arrivals_per_s == 0

    @property
    def pressing(self) -> bool:
        """Whether jobs are queued in a tier with a target within the window, or suspects, which are as urgent."""
        return self.suspects > 0 or any(tier.queued and tier.target_wait_s <= WINDOW_S for tier in self.tiers)

    @property
    def replicas(self) -> int:
        """Workers that serve or load; draining ones do not count."""
        return sum(count for phase, count in self.phases.items() if phase is not Phase.DRAINING)

    @property
    def ready(self) -> int:
        """Workers that serve now."""
        return self.phases.get(Phase.READY, 0)

    @property
    def urgency(self) -> float:
        """The longest wait of any tier, as a multiple of the tier's target."""
        fastest = min((tier.target_wait_s for tier in self.tiers), default=math.inf)
        return max(
            self.suspects_waited_s / fastest,
            *(tier.waited_s / tier.target_wait_s for tier in self.tiers if tier.queued),
            0.0,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one round remembers of a model's queues for the next. Unix times.

    ``samples`` are (time, jobs that had ever arrived in each tier); ``active_at`` is when the model last had jobs;
    ``suspects_since`` is since when it has had suspects, if it has any.
    """

    samples: tuple[tuple[float, tuple[int, ...]], ...]
    active_at: float
    suspects_since: float | None = None
    attained: Mapping[str, Attainment] = field(default_factory=dict)
    """By tier of which something is asked."""

    def per_s(self) -> tuple[float, ...]:
        """Arrivals per second of each tier, over a whole window at least: one job in the first instant is no rate."""
        (first, before), (last, now) = self.samples[0], self.samples[-1]
        span = max(last - first, WINDOW_S)
        return tuple(max(0, b - a) / span for a, b in zip(before, now, strict=True))


def watch(
    before: Traffic | None, now: float, queues: ModelQueues, targets: Mapping[str, float] | None = None
) -> Traffic:
    """The traffic after another observation. The first counts as activity, so that a new autoscaler drains nothing.

    Args:
        targets: target waits in seconds, of the tiers whose attainment is followed.
    """
    targets = targets or {}
    arrived = tuple(tier.arrived for tier in queues.tiers)
    known_since = before.suspects_since if before is not None else None
    suspects_since = (now if known_since is None else known_since) if queues.suspects else None
    if before is None or not _continues(before.samples[0][1], arrived):
        return Traffic(((now, arrived),), now, suspects_since, _attained({}, now, queues, targets))
    active = queues.queued > 0 or queues.inflight > 0 or arrived != before.samples[-1][1]
    # One sample from before the window is kept, so that the samples always span all of it.
    recent = [sample for sample in before.samples if sample[0] > now - WINDOW_S]
    kept = before.samples[-len(recent) - 1 :]
    attained = _attained(before.attained, now, queues, targets)
    return Traffic((*kept, (now, arrived)), now if active else before.active_at, suspects_since, attained)


def _attained(
    before: Mapping[str, Attainment], now: float, queues: ModelQueues, targets: Mapping[str, float]
) -> Mapping[str, Attainment]:
    return {
        one.tier: before[one.tier].after(now, one.arrived, one.length, targets[one.tier])
        if one.tier in before
        else first(now, one.arrived, one.length)
        for one in queues.tiers
        if one.tier in targets
    }


def _continues(before: Sequence[int], now: Sequence[int]) -> bool:
    """Whether the counters are a continuation: over a window they only grow, unless the server was emptied or the tiers
    changed. Between two observations they may dip, when a job is claimed between the two reads that make up the sum."""
    return len(before) == len(now) and all(a <= b for a, b in zip(before, now, strict=True))


def assess(
    now: float,
    settings: Settings,
    queues: ModelQueues,
    traffic: Traffic,
    workers: Sequence[Worker],
    measured: Mapping[str, float],
) -> Demand:
    """A model's demand.

    Args:
        workers: all workers, of any model.
        measured: ``jobs_per_s``, ``run_s`` and ``load_s`` of a replica as far as measured, and ``jobs_per_s:TYPE`` by
            device type, which is preferred where the types of the model's replicas are known.
    """
    own = [worker for worker in workers if worker.model == queues.model]
    per_s = {tier.tier: rate for tier, rate in zip(queues.tiers, traffic.per_s(), strict=True)}
    slots = settings.models[queues.model].slots
    speeds = {name.removeprefix(BY_TYPE): value for name, value in measured.items() if name.startswith(BY_TYPE)}
    here = _mean([speeds.get(worker.device_type, 0.0) for worker in own])
    phases = {phase: sum(worker.phase is phase for worker in own) for phase in Phase}
    return Demand(
        model=queues.model,
        tiers=tuple(
            TierDemand(
                tier.tier,
                settings.tiers[tier.tier].target_wait_s,
                tier.length,
                tier.waited_s,
                per_s[tier.tier],
                tier.arrived,
                settings.attain(queues.model, tier.tier),
                traffic.attained[tier.tier].share if tier.tier in traffic.attained else None,
            )
            for tier in queues.tiers
        ),
        running=queues.inflight,
        quiet_s=now - traffic.active_at,
        jobs_per_s=here or measured.get("jobs_per_s") or _mean([worker.jobs_per_s for worker in own]),
        load_s=measured.get("load_s") or _mean([worker.load_s for worker in own]),
        free_slots=sum(worker.free_slots for worker in own),
        run_s=measured.get("run_s", 0.0),
        left=max(left_to_others(settings, tier, slots, per_s) for tier in per_s),
        phases=phases,
        suspects=queues.suspects,
        suspects_waited_s=0.0 if traffic.suspects_since is None else now - traffic.suspects_since,
        speeds=speeds,
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value > 0]
    return sum(known) / len(known) if known else 0.0
