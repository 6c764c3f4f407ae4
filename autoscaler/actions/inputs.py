"""Inputs: the numbers behind a decision, which the journal keeps with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .decision import Hold, Start

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..observation import Observation
    from ..sizing.demand import Demand
    from ..sizing.size import Size
    from .decision import Decision


def inputs(seen: Observation, sizes: Mapping[str, Size], decision: Decision) -> dict[str, object]:
    """The demand and size of the decision's model, and the device concerned, by name."""
    found: dict[str, object] = {}
    if size := sizes.get(decision.model):
        found["wanted"] = size.replicas
    if demand := seen.demands.get(decision.model):
        found |= _of_demand(demand)
    if isinstance(decision, Start | Hold) and (model := seen.settings.models.get(decision.model)):
        found["needs_gb"] = model.memory_gb
    if not isinstance(decision, Hold):
        found |= next((_of_device(device) for device in seen.devices if device.id == decision.device), {})
    return found


def _of_demand(demand: Demand) -> dict[str, object]:
    return {
        "queued": {tier.tier: tier.queued for tier in demand.tiers if tier.queued},
        "waited_s": {tier.tier: round(tier.waited_s, 2) for tier in demand.tiers if tier.queued},
        "arrivals_per_s": {tier.tier: round(tier.arrivals_per_s, 3) for tier in demand.tiers if tier.arrivals_per_s},
        "suspects": demand.suspects,
        "running": demand.running,
        "replicas": demand.replicas,
        "free_slots": demand.free_slots,
        "jobs_per_s": round(demand.jobs_per_s, 3),
        "load_s": round(demand.load_s, 2),
        "quiet_s": round(demand.quiet_s, 1),
    }


def _of_device(device: Device) -> dict[str, object]:
    return {
        "device_gb": device.memory_gb,
        "used_gb": None if device.used_gb is None else round(device.used_gb, 2),
        "temperature_c": device.temperature_c,
    }
