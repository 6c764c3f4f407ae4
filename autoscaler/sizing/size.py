"""Size: the number of replicas of a model by its backlog, and what all policies share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .demand import WINDOW_S

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model

    from .demand import Demand

UTILISATION = 0.8
"""Share of its capacity to which a replica is loaded; towards 1, waits grow without bound."""
SHORTEST_WAIT_S = 1.0
SLOWEST_PER_S = 1e-6
"""Rate in jobs per second (one job in eleven days) below which a rate counts as not measured."""


@dataclass(frozen=True, slots=True)
class Size:
    """Replicas wanted, within the model's minimum and maximum, and the reason with its numbers."""

    replicas: int
    reason: str
    spare_s: float | None = None
    """Seconds for which a surplus is kept before it is drained; None stands for the fleet's ``idle_s``."""
    needed: int | None = None
    """Replicas beyond which a surplus is drained at once, since nothing ever needed it; None if there is none such
    (``cold_start.py``)."""


def size(model: Model, demand: Demand, idle_s: float) -> Size:
    """Replicas that serve the queued and arriving jobs within each tier's target.

    Zero (or the minimum) when nothing was queued, running or arriving for ``idle_s`` seconds, else at least one.
    """
    if (nothing := idle(demand, idle_s)) is not None:
        return bounded(model, 0, nothing)
    told = facts(demand)
    if demand.jobs_per_s < SLOWEST_PER_S:
        return bounded(model, max(1, demand.replicas), f"{told}; a replica's capacity is not measured yet")
    required = _required_per_s(demand)
    replicas = max(1, math.ceil(required / demand.jobs_per_s - 1e-9))
    reason = f"{told}; {required:.2f} jobs/s needed, a replica does {demand.jobs_per_s:.2f}"
    if replicas > demand.replicas > 0 and demand.queued <= demand.free_slots:
        # No job waits for a worker: the rate was measured on half-empty batches and understates the capacity.
        replicas, reason = demand.replicas, f"{told}; {demand.free_slots} free slots take it"
    return bounded(model, replicas, reason)


def bounded(model: Model, wanted: int, reason: str, spare_s: float | None = None) -> Size:
    """A size within the model's minimum and maximum; its reason says which of them binds."""
    replicas = min(max(wanted, model.min_replicas), model.max_replicas)
    if replicas > wanted:
        reason = f"min_replicas is {replicas}; {reason}"
    elif replicas < wanted:
        reason = f"{reason}; max_replicas is {replicas}"
    return Size(replicas, reason, spare_s)


def idle(demand: Demand, idle_s: float) -> str | None:
    """The reason why no replica is needed; None when one is."""
    if demand.queued == 0 and demand.running == 0:
        if demand.replicas == 0:
            return "nothing queued or running"
        if demand.quiet_s >= idle_s:
            return f"nothing queued, running or arriving for {demand.quiet_s:.0f} s (idle_s {idle_s:g})"
    return None


def utilisation(demand: Demand, *, waiting: bool = False) -> float:
    """The share of slots in use. With ``waiting``, queued jobs count as running. Without any slot it is 1 when a job is
    queued, else 0."""
    jobs = demand.running + (demand.queued if waiting else 0)
    slots = demand.running + demand.free_slots
    return jobs / slots if slots else float(demand.queued > 0)


def _required_per_s(demand: Demand) -> float:
    """Jobs per second that all replicas together must serve.

    A tier's backlog must be cleared by the time its next job has waited its target; jobs of more urgent tiers go first,
    suspects with the most urgent. A wait shorter than the load time is out of reach, and needs no new replica if the
    present ones clear it in that time. Arrivals count only for tiers with a target within the window; others are sized
    by their backlog alone, or a file of a thousand batch jobs would look like a flood.
    """
    backlog, ahead = 0.0, demand.suspects
    for tier in sorted(demand.tiers, key=lambda tier: tier.target_wait_s):
        ahead += tier.queued
        left = max(tier.target_wait_s - tier.waited_s, demand.load_s, SHORTEST_WAIT_S)
        if tier.queued or demand.suspects:
            backlog = max(backlog, ahead / left)
    urgent = sum(tier.arrivals_per_s for tier in demand.tiers if tier.target_wait_s <= WINDOW_S)
    return backlog + urgent / UTILISATION


def facts(demand: Demand) -> str:
    """The demand in words, for a reason."""
    waiting = [
        f"{tier.tier} {tier.queued} (waiting {tier.waited_s:.1f} s, target {tier.target_wait_s:g} s)"
        for tier in demand.tiers
        if tier.queued
    ]
    if demand.suspects:
        waiting.append("1 suspect" if demand.suspects == 1 else f"{demand.suspects} suspects")
    return (
        f"{demand.queued} queued{': ' + ', '.join(waiting) if waiting else ''}; {demand.running} running; "
        f"{demand.arrivals_per_s:.2f}/s arriving; {demand.replicas} replicas"
    )
