"""Devices: what a worker may hold, as the hardware or ``fleet.toml`` reports it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from producer.contract.slot_uuid import slot_uuid

if TYPE_CHECKING:
    from producer.contract.fleet_schema import DeclaredDevice


class DeviceState(StrEnum):
    """What a device is to the autoscaler."""

    IDLE = "idle"
    RESERVED = "reserved"
    """A worker was started here and does not serve yet."""
    ALLOCATED = "allocated"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Device:
    """One device at one moment. Memory in GB (10^9 bytes), temperature in degrees Celsius; None where it is unknown.

    ``id`` is what people call it, such as ``cuda:2``; ``uuid`` is what it is known by across looks, restarts and
    machines, whatever its place in an enumeration. ``name`` is its type, as the driver calls it. ``used_gb`` is what
    every process there uses together, ``used_by`` each one's share by pid where the driver tells. ``fault`` says why
    the device must not be used; empty when it may.
    """

    id: str
    kind: str
    name: str
    memory_gb: float | None
    used_gb: float | None = 0.0
    used_by: dict[int, float] = field(default_factory=dict)
    temperature_c: float | None = None
    utilisation: float | None = None
    """Share of the last second in which the device ran something, 0 to 1."""
    fault: str = ""
    state: DeviceState = DeviceState.IDLE
    uuid: str = ""
    ecc_errors: int | None = None
    """Memory errors that could not be corrected since the device was last reset; None where there is no such count."""
    xids: tuple[int, ...] = ()
    """Errors of the GPU that the driver has told since the last look, by NVIDIA's numbers."""
    lost: bool = False
    """Whether it is gone, and with it everything that ran there."""
    suspect: bool = False
    """Whether its ``fault`` may be a slip, seen for the first time: nothing new goes there, who is there stays."""
    untold: dict[str, str] = field(default_factory=dict)
    """What it was asked and failed to tell, such as its utilisation, with the error; the rest is as ever."""

    @property
    def key(self) -> str:
        """What it is known by across looks: its UUID, or its name where none is told."""
        return self.uuid or self.id


@dataclass(frozen=True, slots=True)
class Summary:
    """The devices of a node by state, and their memory in GB as far as it is known. ``free_gb`` is what a new worker
    could have."""

    total: int
    idle: int
    reserved: int
    allocated: int
    faulty: int
    memory_gb: float
    used_gb: float
    free_gb: float


class Probe(Protocol):
    """Where devices come from."""

    @property
    def source(self) -> str:
        """Names the source, for the log and for people."""

    def devices(self) -> list[Device]:
        """Every device now. One that cannot be read is returned with its ``fault``, never left out."""


class DeclaredProbe:
    """The devices of ``fleet.toml``, as they are declared."""

    source = "fleet.toml"

    def __init__(self, declared: Iterable[DeclaredDevice]) -> None:
        self._devices = [Device(one.name, "cpu", one.name, one.memory_gb, uuid=slot_uuid(one.name)) for one in declared]

    def devices(self) -> list[Device]:
        """The same devices every time: nothing measures them."""
        return list(self._devices)


def type_of(device: Device) -> str:
    """What devices of the same speed have in common: ``cpu``, or a GPU's product name."""
    return device.name if device.kind == "cuda" else device.kind


def summarise(devices: Sequence[Device], free_gb: float) -> Summary:
    """The devices of a node.

    Args:
        free_gb: as :func:`~autoscaler.devices.placement.free_gb` tells of those that may be used, together.
    """
    states = [device.state for device in devices]
    return Summary(
        total=len(devices),
        idle=states.count(DeviceState.IDLE),
        reserved=states.count(DeviceState.RESERVED),
        allocated=states.count(DeviceState.ALLOCATED),
        faulty=states.count(DeviceState.FAULTY),
        memory_gb=sum(device.memory_gb or 0.0 for device in devices),
        used_gb=sum(device.used_gb or 0.0 for device in devices),
        free_gb=free_gb,
    )
