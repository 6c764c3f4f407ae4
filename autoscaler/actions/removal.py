"""Removal: the workers that must end whatever the demand is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..roster import Phase, Worker
from .decision import Drain

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..observation import Memory, Observation


HAND_BACK_S = 10.0
"""Seconds beyond ``drain_s`` that a draining worker gets to give back its unfinished jobs."""


LAST_WORDS_S = 2.0
"""Seconds that a worker on a lost device gets to give back the jobs it has not begun, before it is killed."""

OWN_END_S = 60.0
"""Seconds beyond an engine's own limit for loading: its worker starts before the limit does, and has to end its server.
"""


def remove(seen: Observation, memory: Memory) -> tuple[list[Drain], Memory]:
    """Kill workers past their time limits; drain workers on faulty devices, and of models no longer in the fleet
    file."""
    managed = [worker for worker in seen.workers if worker.managed]
    silent = {
        worker.name: memory.silent_since.get(worker.name, seen.now)
        for worker in managed
        if worker.phase is Phase.STARTING
    }
    scaling = seen.settings.scaling
    faults = {device.id: device for device in seen.devices if device.fault and not device.suspect}
    drains = []
    for worker in managed:
        if late := _overdue(seen, worker, silent) or _stranded(seen.now, worker, faults):
            drains.append(Drain(worker.model, worker.name, worker.device, 0.0, late))
        elif worker.serves and (why := _unwanted(worker, faults, seen.settings.models)):
            drains.append(Drain(worker.model, worker.name, worker.device, scaling.drain_s, why))
    return drains, replace(memory, silent_since=silent)


def _overdue(seen: Observation, worker: Worker, silent: Mapping[str, float]) -> str:
    """Which time limit a worker has exceeded; empty when none."""
    now, scaling = seen.now, seen.settings.scaling
    if worker.phase is Phase.DRAINING:
        waited, limit = now - (worker.draining_since or now), scaling.drain_s
        late = waited > limit + HAND_BACK_S
        return f"killed: draining for {waited:.0f} s (drain_s {limit:g})" if late else ""
    if worker.phase is Phase.STARTING:
        # Counted from the first round in which the worker was silent, not from its start: after an outage of Redis or
        # of the autoscaler, every worker is silent for a moment.
        waited = now - silent[worker.name]
        limit = scaling.start_s
        return f"killed: no heartbeat for {waited:.0f} s (scaling.start_s {limit:g})" if waited > limit else ""
    if worker.phase is not Phase.LOADING:
        return ""
    waited, (limit, key) = now - worker.started_at, _load_limit(seen, worker.model)
    return f"killed: loading for {waited:.0f} s ({key}; downloads count)" if waited > limit else ""


def _load_limit(seen: Observation, model: str) -> tuple[float, str]:
    """The limit in seconds for loading a worker of the model, and the setting that it comes from.

    An engine with a limit of its own can tell the end of its server's log: it gets the time to end by itself.
    """
    found = seen.settings.models.get(model)
    own_s: float | None = getattr(found.options, "start_s", None) if found is not None else None
    if own_s is None:
        return seen.settings.scaling.start_s, f"scaling.start_s {seen.settings.scaling.start_s:g}"
    return own_s + OWN_END_S, f"models.{model}.options.start_s {own_s:g}"


def _stranded(now: float, worker: Worker, faults: Mapping[str, Device]) -> str:
    """Why a worker on a lost device is killed; empty when its device is not lost, or its time has not passed."""
    device = faults.get(worker.device)
    if device is None or not device.lost or worker.draining_since is None:
        return ""
    waited = now - worker.draining_since
    return f"killed: {device.id} is lost, and nothing there can end ({device.fault})" if waited > LAST_WORDS_S else ""


def _unwanted(worker: Worker, faults: Mapping[str, Device], models: Mapping[str, object]) -> str:
    if worker.device in faults:
        return f"{worker.device} is faulty: {faults[worker.device].fault}"
    return "" if worker.model in models else f"{worker.model} is not in fleet.toml any more"
