"""The fleet on the virtual clock: devices, and the workers on them. The launcher of the simulation."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from autoscaler.devices.device import Device, DeviceState

from .worker import SimulatedWorker

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import DeviceType
    from producer.contract.fleet.settings import Settings

    from .hardware import Hardware
    from .traces.trace import Trace


class SimulatedFleet:
    """Knows every device, every worker that lives, and how long devices were held.

    Args:
        seed: of load times. Each start draws one, so that policies that start alike load alike.
    """

    def __init__(self, settings: Settings, hardware: Hardware, trace: Trace, seed: int) -> None:
        self.types: list[DeviceType] = [kind for kind in hardware.devices for _ in range(kind.count)]
        self.devices = [
            Device(f"cpu:{n}", "cpu", kind.type, kind.memory_gb, uuid=f"{n}") for n, kind in enumerate(self.types)
        ]
        self.workers: dict[str, SimulatedWorker] = {}
        self.held_s = dict.fromkeys((kind.type for kind in hardware.devices), 0.0)
        self.starts = 0
        self._settings, self._trace = settings, trace
        self._place = {device.id: n for n, device in enumerate(self.devices)}
        self._models = {name: n for n, name in enumerate(trace.models)}
        speeds = {kind.speed for kind in hardware.devices}
        self._services = {
            (name, speed): service.faster(speed) for name, service in hardware.services.items() for speed in speeds
        }
        self._rng = random.Random(seed)
        self._repairs: dict[int, Device] = {}

    def start(self, model: str, device: str, now: float) -> tuple[SimulatedWorker, float]:
        """A new worker, and when it will be ready."""
        place = self._place[device]
        service = self._services[model, self.types[place].speed]
        self.starts += 1
        worker = SimulatedWorker(
            f"{model}-{self.starts}", self._models[model], place, service,
            self._settings.models[model].max_concurrency, self._trace, now,
        )  # fmt: skip
        self.workers[worker.name] = worker
        self._use(place, DeviceState.RESERVED)
        load_s = (
            service.load_s * math.exp(self._rng.gauss(0.0, service.load_sigma))
            if service.load_sigma
            else service.load_s
        )
        return worker, now + load_s

    def end(self, worker: SimulatedWorker, now: float) -> None:
        """The worker is gone, and its device free."""
        del self.workers[worker.name]
        self._use(worker.device, DeviceState.IDLE)
        self.held_s[self.types[worker.device].type] += now - worker.started_at

    def ready(self, worker: SimulatedWorker, now: float) -> None:
        """The worker has loaded, and serves."""
        worker.ready(now)
        self._use(worker.device, DeviceState.ALLOCATED)

    def settle(self, now: float) -> dict[str, float]:
        """Device seconds by type, of workers that are still there up to now."""
        held = dict(self.held_s)
        for worker in self.workers.values():
            held[self.types[worker.device].type] += now - worker.started_at
        return held

    def break_down(self, place: int, why: str) -> SimulatedWorker | None:
        """A device fails. Returns the workers that were on it."""
        device = self.devices[place]
        self._repairs[place] = device
        self.devices[place] = replace(device, fault=why)
        return next((worker for worker in self.workers.values() if worker.device == place), None)

    def repair(self, place: int) -> None:
        """Another device is in its place: it has no history, and is not kept out for one."""
        device = self._repairs.pop(place)
        self.devices[place] = replace(device, uuid=f"{device.uuid}'")

    def next_failure(self, rng: random.Random, place: int, now: float) -> float:
        """When a device fails next; infinity when its type never does."""
        per_s = self.types[place].failures_per_day / 86_400
        return now + rng.expovariate(per_s) if per_s else math.inf

    def _use(self, place: int, state: DeviceState) -> None:
        """Show a device as the autoscaler would find that it is used: it then need not make it anew in every round."""
        self.devices[place] = replace(self.devices[place], state=state)
