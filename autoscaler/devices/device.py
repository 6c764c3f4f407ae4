"""Devices: what workers run on, as the hardware or ``fleet.toml`` reports it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from producer.contract.fleet.slot_uuid import slot_uuid

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import DeclaredDevice


class DeviceState(StrEnum):
    """The state of a device."""

    IDLE = "idle"
    RESERVED = "reserved"
    """A worker was started on it and does not serve yet."""
    ALLOCATED = "allocated"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Device:
    """One device at one moment. Memory in GB (10^9 bytes), temperature in degrees Celsius; None where it is unknown.

    ``id`` is its display name, such as ``cuda:2``; ``uuid`` identifies it across readings, restarts and machines,
    whatever its place in an enumeration. ``name`` is its type in the driver's words. ``used_gb`` is the memory that all
    processes on it use together, ``used_by`` the share of each by pid, if the driver reports it. ``fault`` says why the
    device must not be used; empty when it may.
    """

    id: str
    kind: str
    name: str
    memory_gb: float | None
    used_gb: float | None = 0.0
    used_by: dict[int, float] = field(default_factory=dict)
    temperature_c: float | None = None
    utilisation: float | None = None
    """Share of time, 0 to 1, in which a kernel ran in NVML's last sample period (at most a second)."""
    fault: str = ""
    state: DeviceState = DeviceState.IDLE
    uuid: str = ""
    ecc_errors: int | None = None
    """Uncorrectable memory errors since the driver was loaded or the GPU reset; None without ECC."""
    xids: tuple[int, ...] = ()
    """Numbers of the XID errors that the driver reported since the last reading."""
    lost: bool = False
    """Whether it is gone, and with it all that ran on it."""
    suspect: bool = False
    """Whether its ``fault`` is not confirmed yet and may pass: no worker is placed on it, and none is drained."""
    others: dict[int, str] = field(default_factory=dict)
    """The processes of ``used_by`` that no worker has started, by pid, each with its command."""
    untold: dict[str, str] = field(default_factory=dict)
    """Quantities that could not be read, such as its utilisation, each with the error. The others are valid."""

    @property
    def key(self) -> str:
        """Its identity across readings: its UUID, or its name if it reports none."""
        return self.uuid or self.id


@dataclass(frozen=True, slots=True)
class Summary:
    """The number of a node's devices by state, and their known memory in GB. ``free_gb`` is free for new workers."""

    total: int
    idle: int
    reserved: int
    allocated: int
    faulty: int
    memory_gb: float
    used_gb: float
    free_gb: float


class Probe(Protocol):
    """A source of devices."""

    @property
    def source(self) -> str:
        """The name of the source, for display."""

    def devices(self) -> list[Device]:
        """Every device now. A device that cannot be read is returned with its ``fault``, not left out."""


class DeclaredProbe:
    """The devices that ``fleet.toml`` declares."""

    source = "fleet.toml"

    def __init__(self, declared: Iterable[DeclaredDevice]) -> None:
        self._devices = [Device(one.name, "cpu", one.name, one.memory_gb, uuid=slot_uuid(one.name)) for one in declared]

    def devices(self) -> list[Device]:
        """The same devices in every call; none is measured."""
        return list(self._devices)


def type_of(device: Device) -> str:
    """The type by which speeds are measured: ``cpu``, or a GPU's product name."""
    return device.name if device.kind == "cuda" else device.kind


def summarise(devices: Sequence[Device], free_gb: float) -> Summary:
    """The summary of a node's devices.

    Args:
        free_gb: the sum of :func:`~autoscaler.devices.placement.free_gb` over the devices without a fault.
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
