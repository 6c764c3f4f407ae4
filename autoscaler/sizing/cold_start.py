"""A cold start: how a model grows of which no replica's capacity has been measured yet, and what of that growth stays.

A replica's first rate says little: it counts the jobs that have ended while all of its slots were filled for the first
time, and may be a tenth of what the replica does later. Sized by that, a model that needs six replicas asks for 36.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .size import Size, bounded, facts, size

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model

    from .demand import Demand


def cold_size(model: Model, demand: Demand, idle_s: float, ahead_s: float) -> Size:
    """The replicas of a model without a measured capacity: one, and then at most twice those that have loaded.

    A replica that loads does not count, so that they double at most once in each load time. Within that bound the model
    is sized by its backlog: at its declared rate, else at the first rate that its replicas tell. While they tell none,
    it grows if jobs of a tier wait that cannot wait for one.

    Args:
        ahead_s: a tier with a shorter target cannot wait for a replica.
    """
    per_s = model.jobs_per_s or demand.jobs_per_s
    found = size(model, replace(demand, jobs_per_s=per_s), idle_s)
    most = max(1, 2 * demand.ready)
    if not per_s and any(tier.queued and tier.target_wait_s <= ahead_s for tier in demand.tiers):
        wanted = most if demand.queued > demand.free_slots else demand.replicas
        found = bounded(model, max(wanted, demand.replicas), f"{facts(demand)}; no job has ended yet that tells a rate")
    if found.replicas <= max(most, demand.replicas, model.min_replicas):
        return found
    why = f"{found.reason}; until a replica is measured, no more than twice the {demand.ready} that have loaded"
    return bounded(model, max(most, demand.replicas), why)


def needed_since(before: int | None, measured: bool, wanted: int, replicas: int) -> int | None:
    """The most replicas that a model has been found to need since its capacity was measured, while it has more, which
    were started before; else None. To keep those others was never paid for by a need.

    Args:
        before: the same of the round before.
        measured: whether its capacity has been measured.
        wanted: replicas that it needs now.
        replicas: that it has.
    """
    if not measured:
        return 0
    if before is None:
        return None
    needed = max(before, wanted)
    return needed if replicas > needed else None
