"""Deaths of workers by faults of their devices. When a GPU is lost, its worker dies first; the fault is read later.

No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .quarantine import Fault

if TYPE_CHECKING:
    from ..launchers.protocol import Ended
    from .device import Device
    from .quarantine import Health

SEEN_WITHIN_S = 30.0
"""Seconds after a death within which a fault of the device is its probable cause: NVML may be slow on a broken GPU."""
DEADLY = frozenset({Fault.UNREADABLE, Fault.LOST, Fault.ECC, Fault.XID})
"""Faults that end what runs on a device. A hot one goes on."""


class DeviceDeaths:
    """Remembers workers that ended unexpectedly, for :data:`SEEN_WITHIN_S`: a fault of their device may explain it."""

    def __init__(self) -> None:
        self._ended: dict[str, tuple[float, Ended]] = {}

    def add(self, now: float, ended: Ended) -> None:
        """Record a worker that ended unexpectedly at ``now`` (Unix seconds), if its device is known."""
        if ended.device_key:
            self._ended[ended.name] = now, ended

    def explained(self, now: float, devices: Sequence[Device], health: Mapping[str, Health]) -> list[tuple[Ended, str]]:
        """The workers whose devices are lost or have another fault that ends workers, each once, with the fault.

        Args:
            devices: the last reading. All GPUs that are lost at once are not put into quarantine.
            health: the health of the devices, by :attr:`~autoscaler.devices.device.Device.key`.
        """
        faults = {key: f"{one.device}: {one.reason}" for key, one in health.items() if one.fault in DEADLY}
        faults = {one.key: f"{one.id}: {one.fault}" for one in devices if one.lost} | faults
        found = []
        for name, (at, ended) in list(self._ended.items()):
            if fault := faults.get(ended.device_key):
                found.append((ended, fault))
                del self._ended[name]
            elif not 0 <= now - at <= SEEN_WITHIN_S:
                del self._ended[name]
        return found
