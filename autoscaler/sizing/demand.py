"""Demand: what a model is asked for and what it has to answer with, at one moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.contract.reserved_slots import left_to_others

from ..roster import Phase, Worker

if TYPE_CHECKING:
    from producer.contract.settings import Settings
    from scheduler.queue_lengths import ModelQueues

WINDOW_S = 10.0
"""How far back arrivals are counted."""
BY_TYPE = "jobs_per_s:"
"""Before a type of device, in what was measured."""


@dataclass(frozen=True, slots=True)
class TierDemand:
    """One tier of a model: jobs waiting, for how many seconds its next job was passed over by the server's clock
    (its age is its producer's word, on which nobody gets replicas), arrivals in jobs per second."""

    tier: str
    target_wait_s: float
    queued: int = 0
    waited_s: float = 0.0
    arrivals_per_s: float = 0.0
    arrived: int = 0
    """Jobs, ever."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One model. ``suspects`` are jobs that wait to be run alone, as urgent as the model's fastest tier, for
    ``suspects_waited_s`` seconds now. ``jobs_per_s`` is what one replica was measured to do, ``load_s`` how long
    one takes to come up; 0 means not measured yet. ``quiet_s`` is how long nothing was queued, running or
    arriving."""

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
    """What one replica was measured to do on each type of device, in jobs per second, as far as it was."""
    left: int = 0
    """Slots of each replica that preemptible tiers leave to the others."""
    run_s: float = 0.0
    """How long a job ran, from its claim to its end, as those of ``jobs_per_s`` did; 0 when not measured."""

    @property
    def queued(self) -> int:
        """Jobs waiting, over all tiers, and the suspects beside them."""
        return sum(tier.queued for tier in self.tiers) + self.suspects

    @property
    def arrivals_per_s(self) -> float:
        """Arrivals, over all tiers."""
        return sum(tier.arrivals_per_s for tier in self.tiers)

    @property
    def none(self) -> bool:
        """Whether nobody has asked for the model lately: nothing is queued, running or arriving."""
        return self.queued == 0 and self.running == 0 and self.arrivals_per_s == 0

    @property
    def pressing(self) -> bool:
        """Whether jobs wait in a tier that cannot wait, or are to be run alone, which is as urgent."""
        return self.suspects > 0 or any(tier.queued and tier.target_wait_s <= WINDOW_S for tier in self.tiers)

    @property
    def replicas(self) -> int:
        """Workers that serve or will, not those that drain."""
        return sum(count for phase, count in self.phases.items() if phase is not Phase.DRAINING)

    @property
    def ready(self) -> int:
        """Workers that serve now."""
        return self.phases.get(Phase.READY, 0)

    @property
    def urgency(self) -> float:
        """How late the latest tier is, in units of its own target."""
        fastest = min((tier.target_wait_s for tier in self.tiers), default=math.inf)
        return max(
            self.suspects_waited_s / fastest,
            *(tier.waited_s / tier.target_wait_s for tier in self.tiers if tier.queued),
            0.0,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is remembered of a model's queues between two looks: when, and how many jobs had ever arrived
    in each tier; when it last had anything to do; and since when it has had suspects, if it has any."""

    samples: tuple[tuple[float, tuple[int, ...]], ...]
    active_at: float
    suspects_since: float | None = None

    def per_s(self) -> tuple[float, ...]:
        """Arrivals of each tier. Over less than a window they count as over a whole one: one job that came
        in the first instant is no rate of thousands."""
        (first, before), (last, now) = self.samples[0], self.samples[-1]
        span = max(last - first, WINDOW_S)
        return tuple(max(0, b - a) / span for a, b in zip(before, now, strict=True))


def watch(before: Traffic | None, now: float, queues: ModelQueues) -> Traffic:
    """Take another look at a model's queues. The first look counts as activity, so that an autoscaler
    that has just started stops nobody."""
    arrived = tuple(tier.arrived for tier in queues.tiers)
    known_since = before.suspects_since if before is not None else None
    suspects_since = (now if known_since is None else known_since) if queues.suspects else None
    if before is None or not _continues(before.samples[0][1], arrived):
        return Traffic(((now, arrived),), now, suspects_since)
    active = queues.queued > 0 or queues.inflight > 0 or arrived != before.samples[-1][1]
    # One sample from before the window stays, so that the samples always span all of it.
    recent = [sample for sample in before.samples if sample[0] > now - WINDOW_S]
    kept = before.samples[-len(recent) - 1 :]
    return Traffic((*kept, (now, arrived)), now if active else before.active_at, suspects_since)


def _continues(before: Sequence[int], now: Sequence[int]) -> bool:
    """Over a window counters only grow; those of an emptied server, or of other tiers, start anew. From one
    look to the next they may dip, when a job is taken between the reading of the two that make up the sum."""
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
        workers: all there are, of any model.
        measured: ``jobs_per_s``, ``run_s`` and ``load_s`` of a replica, as far as they were ever measured, and
            ``jobs_per_s:TYPE`` on each type of device. Where its replicas are of known types, these count.
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
