"""What if: the conditions under which a model would get another replica. Pure, without effect on any decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from producer.contract.published import ScaleUpConditions

from ..devices.placement import Occupant, by_device, free_gb, occupants
from .grow import home, start_blocker

if TYPE_CHECKING:
    from ..observation import Memory, Observation
    from ..sizing.policy_registry import Policy

MOST_JOBS = 1_000_000
"""Largest queue length that is tried."""


def one_more(seen: Observation, policy: Policy, memory: Memory, model: str) -> ScaleUpConditions:
    """The conditions for scale-up of a model, found by asking the policy about hypothetical demands.

    Args:
        memory: the memory with which the policy decided in this round.
    """
    demand = seen.demands[model]
    fastest = min(range(len(demand.tiers)), key=lambda nth: demand.tiers[nth].target_wait_s)
    present = demand.replicas

    def with_queued(jobs: int) -> Observation:
        tiers = list(demand.tiers)
        tiers[fastest] = replace(tiers[fastest], queued=jobs)
        return replace(seen, demands={model: replace(demand, tiers=tuple(tiers))})

    def wanted(jobs: int) -> bool:
        sizes, _ = policy.sizes(with_queued(jobs), memory)
        return sizes[model].replicas > present

    now, tier = demand.tiers[fastest].queued, demand.tiers[fastest].tier
    queued = _least(now, wanted)
    where = _where(with_queued(now + 1 if queued is None else queued), model)
    return where.model_copy(update={"present": present, "tier": tier, "queued": queued})


def _least(low: int, wanted: Callable[[int], bool]) -> int | None:
    """The least number from ``low`` on that is wanted, by bisection: ``wanted`` is taken to be monotonic."""
    high = max(1, low)
    if wanted(low):
        return low
    while not wanted(high):
        if high >= MOST_JOBS:
            return None
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wanted(middle) else (middle, high)
    return high


def _where(seen: Observation, model: str) -> ScaleUpConditions:
    here = by_device(occupants(seen.workers, seen.devices, seen.settings.models))
    replica = Occupant(f"a new {model}", model, "", seen.settings.models[model].memory_gb)
    if device := home(seen, replica, here):
        return ScaleUpConditions(
            present=0, tier="", queued=None, device=device.id, free_gb=free_gb(device, here.get(device.id, ()))
        )
    return ScaleUpConditions(present=0, tier="", queued=None, hindrance=start_blocker(seen, replica, here).reason)
