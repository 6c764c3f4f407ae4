"""Placement: which device a new replica goes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..roster import Phase, Worker
from .device import Device, DeviceState, Summary, summarise, type_of

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model


@dataclass(frozen=True, slots=True)
class Occupant:
    """A holder of a device or a part of one: a worker, or a replica that this round has placed.

    ``memory_gb`` is the memory it may use, ``measured_gb`` what it uses now.
    """

    name: str
    model: str
    device: str
    memory_gb: float
    measured_gb: float = 0.0
    serves: bool = True


ByDevice = Mapping[str, Sequence[Occupant]]
"""The occupants of each device that has any."""


def occupants(
    workers: Iterable[Worker], devices: Iterable[Device], models: Mapping[str, Model]
) -> tuple[Occupant, ...]:
    """The occupants of ``devices``. A draining worker occupies its device until it has ended."""
    by_id = {device.id: device for device in devices}
    found = []
    for worker in workers:
        if (device := by_id.get(worker.device)) is None:
            continue
        model = models.get(worker.model)
        declared = model.memory_gb if model else 0.0
        measured = device.used_by.get(worker.pid) if worker.pid is not None else None
        if measured is None:  # the driver does not report it, or its pids differ, as in a container
            # A worker that drains before it was ready may not have allocated it: the used memory may be others'.
            measured = declared if worker.phase is Phase.READY or worker.was_ready else 0.0
        found.append(
            Occupant(worker.name, worker.model, device.id, max(declared, measured), measured, serves=worker.serves)
        )
    return tuple(found)


def place(
    model: str,
    memory_gb: float,
    devices: Sequence[Device],
    here: ByDevice,
    *,
    per_gpu: int = 1,
    headroom: int = 0,
    others_gb: Sequence[float] = (),
    speeds: Mapping[str, float] | None = None,
) -> Device | None:
    """The device for a replica of ``model`` that needs ``memory_gb``; None when it fits on none.

    Of the devices it fits on, the first by: least memory made useless to the fleet's models (:func:`fragmentation`);
    fewest workers, which share its speed; highest speed for the model; least memory left over. So small models share a
    GPU when whole GPUs are to be kept for large models, and have one each otherwise.

    Args:
        here: the occupants of the devices.
        per_gpu: how many replicas of the model may share a GPU.
        headroom: how many idle devices must stay idle.
        others_gb: memory in GB that a replica of each of the fleet's models needs.
        speeds: jobs per second of a replica, by type of device. A type without a measurement counts as fastest.
    """
    open_ = [device for device in devices if device.kind != "cpu" or device.id not in here]
    fitting = [one for one in open_ if not blocker(model, memory_gb, one, here.get(one.id, ()), per_gpu)]
    if headroom and len(idle(devices, here)) <= headroom:
        fitting = [device for device in fitting if here.get(device.id)]

    def cost(device: Device) -> tuple[float, int, float, float, str]:
        occupants = here.get(device.id, ())
        free = free_gb(device, occupants)
        speed = speeds.get(type_of(device), math.inf) if speeds else 0.0
        lost = 0.0
        if device.kind == "cuda":  # a CPU slot is taken as a whole
            lost = fragmentation(free - memory_gb, others_gb) - fragmentation(free, others_gb)
        return lost, len(occupants), -speed, free, device.id

    return min(fitting, key=cost, default=None)


def idle(devices: Iterable[Device], here: ByDevice) -> list[Device]:
    """The devices without a fault or an occupant."""
    return [device for device in devices if not device.fault and not here.get(device.id)]


def fragmentation(free_gb: float, others_gb: Iterable[float]) -> float:
    """Memory of a device, in GB, that is useless to models that need more, summed over these models.

    As in Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
    USENIX ATC 2023, with the fleet's models as the expected workload, each as likely as the others.
    """
    return sum(free_gb for needed in others_gb if free_gb < needed)


def by_device(held: Iterable[Occupant]) -> dict[str, tuple[Occupant, ...]]:
    """The occupants of each device that has any, so that a look-up does not search the occupants of all devices."""
    found: dict[str, tuple[Occupant, ...]] = {}
    for each in held:
        found[each.device] = (*found.get(each.device, ()), each)
    return found


def blocker(model: str, memory_gb: float, device: Device, here: Sequence[Occupant], per_gpu: int = 1) -> str:
    """Why a replica cannot be placed on a device with the occupants ``here``; empty when it can. ``per_gpu`` of its
    model may share a GPU."""
    if device.fault:
        return f"{device.id} is faulty ({device.fault})"
    if device.memory_gb is None or device.used_gb is None:
        return f"{device.id} does not tell its memory ({device.untold.get('memory', 'it is unknown')})"
    if device.memory_gb < memory_gb:
        return f"{device.id} has {device.memory_gb:g} GB in all of {memory_gb:g} GB needed"
    if here and device.kind == "cpu":
        # A CPU slot stands for cores, and is held by a single worker.
        return f"{device.id} is held by {here[0].name}"
    if here and (present := sum([each.model == model and each.serves for each in here])) >= per_gpu:
        # An engine already fills its batches: two of one model on a GPU would mostly take turns.
        return f"{device.id} has {'a replica' if present == 1 else f'{present} replicas'} already"
    free = free_gb(device, here)
    return f"{device.id} has {max(free, 0):.1f} GB free of {memory_gb:g} GB needed" if free < memory_gb else ""


def free_gb(device: Device, here: Sequence[Occupant]) -> float:
    """Memory in GB that is neither used nor reserved for one of the device's occupants; 0 when its memory is
    unknown."""
    if device.memory_gb is None or device.used_gb is None:
        return 0.0
    if not here:  # as of most of a thousand devices, each asked about for every replica that is placed
        return device.memory_gb - device.used_gb
    return device.memory_gb - others_gb(device, here) - sum([each.memory_gb for each in here])


def others_gb(device: Device, here: Sequence[Occupant]) -> float:
    """Memory in GB that is used by something else than the device's occupants; 0 when its memory is unknown."""
    return max(0.0, (device.used_gb or 0.0) - sum([each.measured_gb for each in here]))


def with_states(devices: Iterable[Device], workers: Sequence[Worker]) -> list[Device]:
    """The devices with their states, from the phases of the workers on them."""
    phases: dict[str, set[Phase]] = {}
    for worker in workers:
        phases.setdefault(worker.device, set()).add(worker.phase)
    states = [_state(device, phases.get(device.id)) for device in devices]
    return [
        device if device.state is state else replace(device, state=state)
        for device, state in zip(devices, states, strict=True)
    ]


def summary(devices: Sequence[Device], held: Iterable[Occupant]) -> Summary:
    """The node's devices by state, with the free memory of those without a fault."""
    here = by_device(held)
    free = sum(max(0.0, free_gb(device, here.get(device.id, ()))) for device in devices if not device.fault)
    return summarise(devices, free)


def _state(device: Device, phases: set[Phase] | None) -> DeviceState:
    if device.fault:
        return DeviceState.FAULTY
    if not phases:
        return DeviceState.IDLE
    return DeviceState.RESERVED if phases <= {Phase.STARTING, Phase.LOADING} else DeviceState.ALLOCATED
