"""Sizing: how many replicas a model should have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .demand import WINDOW_S

if TYPE_CHECKING:
    from producer.contract.fleet_schema import Model

    from .demand import Demand

UTILISATION = 0.8
"""Share of its capacity at which a replica is full: beyond it, waiting grows without bound."""
SHORTEST_WAIT_S = 1.0
SLOWEST_PER_S = 1e-6
"""Less than a job in eleven days is no measurement."""


@dataclass(frozen=True, slots=True)
class Size:
    """Replicas wanted, within the model's minimum and maximum, and the numbers that say why."""

    replicas: int
    reason: str
    spare_s: float | None = None
    """How long more than that must have been there before the surplus is drained; None: the fleet's ``idle_s``."""


def size(model: Model, demand: Demand, idle_s: float) -> Size:
    """Replicas that serve what waits and what arrives at each tier's target wait.

    Zero (or the minimum) when nothing was queued, running or arriving for ``idle_s`` seconds; at least one as
    soon as anything is.
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
        # Nothing waits for a worker. A rate measured on half-empty batches understates the replicas.
        replicas, reason = demand.replicas, f"{told}; {demand.free_slots} free slots take it"
    return bounded(model, replicas, reason)


def bounded(model: Model, wanted: int, reason: str, spare_s: float | None = None) -> Size:
    """Within the model's minimum and maximum, saying so where they bind."""
    replicas = min(max(wanted, model.min_replicas), model.max_replicas)
    if replicas > wanted:
        reason = f"min_replicas is {replicas}; {reason}"
    elif replicas < wanted:
        reason = f"{reason}; max_replicas is {replicas}"
    return Size(replicas, reason, spare_s)


def idle(demand: Demand, idle_s: float) -> str | None:
    """Why no replica is needed at all; None when one is."""
    if demand.queued == 0 and demand.running == 0:
        if demand.replicas == 0:
            return "nothing queued or running"
        if demand.quiet_s >= idle_s:
            return f"nothing queued, running or arriving for {demand.quiet_s:.0f} s (idle_s {idle_s:g})"
    return None


def utilisation(demand: Demand, *, waiting: bool = False) -> float:
    """Share of the slots of all that serve that hold a job; with ``waiting``, jobs that wait count as if they did. With
    no slot at all it is 1 when a job waits."""
    jobs = demand.running + (demand.queued if waiting else 0)
    slots = demand.running + demand.free_slots
    return jobs / slots if slots else float(demand.queued > 0)


def _required_per_s(demand: Demand) -> float:
    """Jobs per second that all replicas together must do.

    The backlog of a tier has to be gone when its next job has waited its target; jobs of more urgent tiers go
    first, and suspects with the most urgent. A wait shorter than a new replica takes to load is out of reach,
    and what the present replicas clear in that time needs no new one. Arrivals count for the tiers that cannot
    wait for a backlog to show: a tier that may wait longer than the window is sized by its backlog alone, or a
    file of a thousand batch jobs would look like a flood.
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
    """What a size is about, for its reason."""
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
