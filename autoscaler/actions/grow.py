"""Growing: placing missing replicas on devices, and making room for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..devices.device import type_of
from ..devices.placement import ByDevice, Occupant, blocker, by_device, occupants, place
from ..roster import Phase, Worker
from .decision import Decision, Drain, Hold, Start

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..observation import Memory, Observation
    from ..sizing.size import Size


DEVICES_TOLD = 16
"""Devices whose blockers a reason lists, at most."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Occupants of the devices: now, and projected to when draining workers have ended and promised replicas have
    started."""

    now: ByDevice
    projected: ByDevice

    def started(self, replica: Occupant) -> Occupancy:
        """The occupancy with a replica that is started now."""
        return Occupancy(_with(self.now, replica), _with(self.projected, replica))

    def promised(self, replica: Occupant) -> Occupancy:
        """The occupancy with a replica that is promised the device."""
        return Occupancy(self.now, _with(self.projected, replica))

    def without(self, worker: Worker) -> Occupancy:
        """The occupancy when that worker has ended."""
        here = tuple(one for one in self.projected.get(worker.device, ()) if one.name != worker.name)
        others = {device: held for device, held in self.projected.items() if device != worker.device}
        return Occupancy(self.now, {**others, worker.device: here} if here else others)

    def leaving(self, device: str) -> list[str]:
        """Names of the occupants of a device that are leaving."""
        later = self.projected.get(device, ())
        return [one.name for one in self.now.get(device, ()) if one not in later]


def _with(here: ByDevice, replica: Occupant) -> ByDevice:
    return {**here, replica.device: (*here.get(replica.device, ()), replica)}


def grow(
    seen: Observation, memory: Memory, sizes: Mapping[str, Size], workers: Sequence[Worker]
) -> tuple[list[Decision], Memory]:
    """Start missing replicas where they fit; where they do not, make room or name the blocker.

    Args:
        workers: all workers; those drained in this round are in phase ``DRAINING``.
    """
    missing, decisions = _missing(seen, memory, sizes, workers)
    if not missing:
        return decisions, memory
    held = occupants(workers, seen.devices, seen.settings.models)
    occupancy = Occupancy(by_device(held), by_device(each for each in held if each.serves))
    started = dict(memory.started_at)
    stuck: set[str] = set()
    for nth, _, name in missing:
        if name in stuck:
            continue
        replica = Occupant(f"a new {name}", name, "", seen.settings.models[name].memory_gb)
        if device := home(seen, replica, occupancy.now):
            occupancy = occupancy.started(replace(replica, device=device.id))
            reason = sizes[name].reason
            decisions.append(Start(name, device.id, device.kind, reason, type_of(device), uuid=device.uuid))
            started[name] = seen.now
        else:
            stuck.add(name)
            made, occupancy = _make_room(seen, workers, occupancy, replica, first=nth == 0)
            decisions += [_explained(one, sizes[name].reason) for one in made]
    return decisions, replace(memory, started_at=started)


def _missing(
    seen: Observation, memory: Memory, sizes: Mapping[str, Size], workers: Sequence[Worker]
) -> tuple[list[tuple[int, float, str]], list[Decision]]:
    """Replicas to start, as (replicas of its model before it, minus its urgency, model), and the starts that are
    blocked.

    Sorted by claim to a device: the first replica of every model before any second one, the most urgent first.
    """
    missing: list[tuple[int, float, str]] = []
    holds: list[Decision] = []
    serving = Counter(worker.model for worker in workers if worker.serves)
    for name, wanted in sizes.items():
        present = serving[name]
        if present >= wanted.replicas:
            continue
        failure = memory.failures.get(name)
        cooled = seen.now - memory.started_at.get(name, 0.0) >= seen.settings.scaling.up_cooldown_s
        if failure is not None and seen.now < failure.until:
            holds.append(Hold(name, f"back-off {failure.failures}", failure.reason))
        elif present == 0 or cooled:
            upto = min(wanted.replicas, present + seen.settings.scaling.max_step)
            missing += [(nth, -seen.demands[name].urgency, name) for nth in range(present, upto)]
    return sorted(missing), holds


def _make_room(
    seen: Observation, workers: Sequence[Worker], occupancy: Occupancy, replica: Occupant, *, first: bool
) -> tuple[list[Decision], Occupancy]:
    """The decisions for a replica that fits on no device: wait for draining workers, or, when its model has queued jobs
    and no worker, drain an idle worker of a model without demand before its idle time is over."""
    model = replica.model
    if device := home(seen, replica, occupancy.projected):
        hold = Hold(model, "waiting", f"waits for {device.id}: {', '.join(occupancy.leaving(device.id))} drains")
        return [hold], occupancy.promised(replace(replica, device=device.id))
    devices, per_gpu = {device.id: device for device in seen.devices}, seen.settings.models[model].replicas_per_gpu
    for idle in _dispensable(seen, workers, occupancy) if first and seen.demands[model].queued else ():
        after = occupancy.without(idle)
        left = after.projected.get(idle.device, ())
        if idle.device not in devices or blocker(model, replica.memory_gb, devices[idle.device], left, per_gpu):
            continue  # without it the replica fits no better
        if device := home(seen, replica, after.projected):
            quiet = seen.demands[idle.model].quiet_s
            why = f"drained early: {model} has jobs waiting and no device, {idle.model} none for {quiet:.0f} s"
            drain = Drain(idle.model, idle.name, idle.device, seen.settings.scaling.drain_s, why)
            hold = Hold(model, "waiting", f"waits for {device.id}: {idle.name} drains")
            # The drained worker keeps its device until it has ended: no other replica may count on that device.
            return [drain, hold], after.promised(replace(replica, device=device.id))
    return [start_blocker(seen, replica, occupancy.now)], occupancy


def start_blocker(seen: Observation, replica: Occupant, here: ByDevice) -> Hold:
    """Why a replica fits on no device, device by device."""
    model, needed = replica.model, replica.memory_gb
    if not seen.devices:
        return Hold(model, "no idle device", "no idle device: there is none")
    told = {device.id: device.memory_gb for device in seen.devices if device.memory_gb is not None}
    if len(told) == len(seen.devices) and max(told.values()) < needed:
        largest = max(told, key=lambda name: told[name])
        what = f"the largest, {largest}, has {told[largest]:g} GB"
        cure = f"lower models.{model}.memory_gb in fleet.toml if it needs less, or add a larger device"
        return Hold(model, "too large", f"fits on no device: {needed:g} GB needed, {what}. {cure}")
    per_gpu = seen.settings.models[model].replicas_per_gpu
    free = f"is kept free for bursts (headroom_devices is {seen.settings.scaling.headroom_devices})"
    found = [
        blocker(model, needed, device, here.get(device.id, ()), per_gpu) or f"{device.id} {free}"
        for device in seen.devices[:DEVICES_TOLD]
    ]
    if more := len(seen.devices) - len(found):
        found.append(f"and {more} more")
    return Hold(model, "no idle device", f"no idle device: {'; '.join(found)}")


def home(seen: Observation, replica: Occupant, here: ByDevice) -> Device | None:
    """The device for a replica; None when it fits on none. Headroom devices are only for models with pressing jobs."""
    demand, models = seen.demands[replica.model], seen.settings.models
    return place(
        replica.model,
        replica.memory_gb,
        seen.devices,
        here,
        per_gpu=models[replica.model].replicas_per_gpu,
        headroom=0 if demand.pressing else seen.settings.scaling.headroom_devices,
        others_gb=[model.memory_gb for model in models.values()],
        speeds=demand.speeds,
    )


def _dispensable(seen: Observation, workers: Sequence[Worker], occupancy: Occupancy) -> list[Worker]:
    """Idle workers of models without demand and above their minimum, the longest idle first."""
    if not any(worker.phase is Phase.READY and not worker.running for worker in workers):
        return []
    staying = [worker for worker in workers if worker.serves and worker.name not in occupancy.leaving(worker.device)]
    present = Counter(worker.model for worker in staying)

    def may_go(worker: Worker) -> bool:
        if not worker.managed or worker.phase is not Phase.READY or worker.running:
            return False
        model, demand = seen.settings.models.get(worker.model), seen.demands.get(worker.model)
        if model is None or demand is None:
            return False
        return demand.none and present[worker.model] > model.min_replicas

    return sorted(filter(may_go, staying), key=lambda worker: (-seen.demands[worker.model].quiet_s, worker.name))


def _explained(decision: Decision, demand: str) -> Decision:
    return replace(decision, reason=f"{decision.reason}. {demand}") if isinstance(decision, Hold) else decision
