"""Published view: what the autoscaler publishes of a round, by the schema of ``producer/contract/published.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from producer.contract.published import PublishedDemand, PublishedDevice, PublishedNode, PublishedSize, PublishedSizes

from .actions.decision import Hold
from .actions.whatif import one_more
from .devices.placement import by_device, others_gb, summary
from .devices.quarantine import doubted

if TYPE_CHECKING:
    from .actions.decision import Decision
    from .devices.device import Device
    from .devices.placement import Occupant
    from .observation import Memory, Observation
    from .sizing.demand import Demand
    from .sizing.policy_registry import Policy


def sizes_view(
    policy: Policy, seen: Observation, before: Memory, memory: Memory, decisions: Sequence[Decision]
) -> PublishedSizes:
    """The sizes that a round decided, with their reasons.

    Args:
        before: the memory at the beginning of the round; ``memory`` is that at its end.
    """
    holds = {one.model: one.reason for one in decisions if isinstance(one, Hold)}
    found = {}
    for name, size in memory.sizes.items():
        failure, surplus = memory.failures.get(name), memory.surplus.get(name)
        found[name] = PublishedSize(
            replicas=size.replicas,
            reason=size.reason,
            demand=demand_view(seen.demands[name]),
            one_more=one_more(seen, policy, before, name),
            hold=holds.get(name, ""),
            cooled_at=memory.started_at.get(name, 0.0) + seen.settings.scaling.up_cooldown_s,
            backed_off_until=failure.until if failure else 0.0,
            backed_off_for=failure.reason if failure else "",
            failed_starts=failure.failures if failure else 0,
            surplus_since=surplus.since if surplus else None,
        )
    return PublishedSizes(at=seen.now, policy=policy.name, models=found)


def demand_view(demand: Demand) -> PublishedDemand:
    """The published form of a demand."""
    return PublishedDemand.model_validate(demand)


def node_view(host: str, now: float, source: str, devices: Sequence[Device], held: Sequence[Occupant]) -> PublishedNode:
    """A machine and its devices with their measurements, states and occupants.

    Args:
        now: Unix seconds.
        source: the probe's :attr:`~autoscaler.devices.device.Probe.source`.
    """
    here = by_device(held)
    found = []
    for device in devices:
        tenants = here.get(device.id, ())
        workers = tuple(one.name for one in tenants)
        rest = others_gb(device, tenants)
        found.append(PublishedDevice(**asdict(device), source=source, workers=workers, others_gb=rest))
    about = asdict(summary(devices, held))
    return PublishedNode(host=host, at=now, source=source, **about, devices=tuple(found), trouble=doubted(devices))
