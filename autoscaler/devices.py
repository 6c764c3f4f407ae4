"""Devices: what a worker may hold, as the hardware or ``fleet.toml`` reports it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from producer.settings import DeclaredDevice

HOT_C = 85.0
"""Above this a GPU is quarantined: it throttles, and every worker on it misses its targets."""
COOL_C = 75.0
"""Below this it is taken back. The gap keeps a GPU near the limit from coming and going."""


class DeviceState(StrEnum):
    """What a device is to the autoscaler."""

    IDLE = "idle"
    RESERVED = "reserved"
    """A worker was started here and does not serve yet."""
    ALLOCATED = "allocated"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Device:
    """One device at one moment. Memory in GB (10^9 bytes), temperature in degrees Celsius.

    ``used_gb`` is what every process there uses together, ``used_by`` each one's share by pid where the
    driver tells. ``fault`` says why the device must not be used; empty when it may.
    """

    id: str
    kind: str
    name: str
    memory_gb: float
    used_gb: float = 0.0
    used_by: dict[int, float] = field(default_factory=dict)
    temperature_c: float | None = None
    utilisation: float | None = None
    """Share of the last second in which the device ran something, 0 to 1."""
    fault: str = ""
    state: DeviceState = DeviceState.IDLE


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
        self._devices = [Device(one.name, "cpu", one.name, one.memory_gb) for one in declared]

    def devices(self) -> list[Device]:
        """The same devices every time: nothing measures them."""
        return list(self._devices)


def quarantine(devices: Sequence[Device], hot: frozenset[str]) -> tuple[list[Device], frozenset[str]]:
    """Give the devices that run hot a fault, until they have cooled down.

    Args:
        hot: ids of those that were hot before.

    Returns:
        The devices, and the ids of those that are hot now.
    """
    still = frozenset(
        device.id
        for device in devices
        if (device.temperature_c is None and device.id in hot)
        or (device.temperature_c is not None and device.temperature_c >= (COOL_C if device.id in hot else HOT_C))
    )
    return [_heated(device) if device.id in still else device for device in devices], still


def _heated(device: Device) -> Device:
    at = "unknown" if device.temperature_c is None else f"{device.temperature_c:.0f} C"
    fault = f"hot: {at}, quarantined from {HOT_C:.0f} C until it is below {COOL_C:.0f} C"
    return replace(device, fault=device.fault or fault)
