"""The roster: every worker, from its heartbeat joined with the launcher's record of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from producer.contract.heartbeat import WorkerState

if TYPE_CHECKING:
    from producer.contract.heartbeat import Heartbeat

    from .devices.device import Device
    from .launchers.protocol import Launched


class Phase(StrEnum):
    """The phase of a worker's life. A worker without a current heartbeat is ``STARTING``."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker at one moment. Times are Unix seconds.

    ``managed`` is True only for a worker that this autoscaler's launcher started and can stop. ``device`` is empty when
    the worker holds no device of this machine. ``running`` counts the jobs it holds, ``free_slots`` the jobs it can
    take besides.
    """

    name: str
    model: str
    device: str
    phase: Phase
    managed: bool
    started_at: float
    pid: int | None = None
    draining_since: float | None = None
    running: int = 0
    free_slots: int = 0
    jobs_per_s: float = 0.0
    load_s: float = 0.0
    batch_size: float = 0.0
    """Mean number of jobs in a batch while ``jobs_per_s`` was measured."""
    device_type: str = ""
    device_uuid: str = ""
    """The UUID of its device; empty for a worker of an older version."""

    @property
    def was_ready(self) -> bool:
        """Whether its model was loaded, even if it drains now."""
        return self.load_s > 0

    @property
    def serves(self) -> bool:
        """Whether it takes new jobs, now or once it is loaded."""
        return self.phase is not Phase.DRAINING


def by_model(workers: Iterable[Worker]) -> Mapping[str, Sequence[Worker]]:
    """The workers of each model; empty for a model without workers."""
    found: defaultdict[str, list[Worker]] = defaultdict(list)
    for worker in workers:
        found[worker.model].append(worker)
    return found


def list_workers(beats: Iterable[Heartbeat], launched: Iterable[Launched], host: str) -> list[Worker]:
    """Every worker, by name.

    Args:
        host: the name of this machine in heartbeats. A device of another machine is left empty.
    """
    ours = {one.name: one for one in launched}
    said = {beat.name: beat for beat in beats}
    return [
        _managed(ours[name], said.get(name)) if name in ours else _stranger(said[name], host)
        for name in sorted(ours.keys() | said.keys())
    ]


def located(workers: Iterable[Worker], devices: Iterable[Device]) -> list[Worker]:
    """The workers with the current names of their devices, which are matched by UUID.

    A name may have passed to another device since a worker was started. A worker whose device has a UUID that is not
    among ``devices`` holds none of them, even if one has the same name.
    """
    names = {device.uuid: device.id for device in devices if device.uuid}
    return [
        replace(worker, device=names.get(worker.device_uuid, "")) if worker.device_uuid else worker
        for worker in workers
    ]


def _managed(one: Launched, beat: Heartbeat | None) -> Worker:
    if beat is None:
        phase = Phase.STARTING if one.draining_since is None else Phase.DRAINING
        return Worker(
            one.name, one.model, one.device, phase, True, one.started_at, one.pid, one.draining_since,
            device_uuid=one.device_uuid,
        )  # fmt: skip
    worker = _from(beat, one.device, managed=True, draining_since=one.draining_since)
    return replace(worker, device_uuid=one.device_uuid or beat.device_uuid)


def _stranger(beat: Heartbeat, host: str) -> Worker:
    """A worker that another launcher started, or whose record was lost. It holds its device and is never stopped.

    Its device belongs to this machine if its UUID does (:func:`located`), or, without a UUID, if its host does.
    """
    return _from(beat, beat.device if beat.host == host else "", managed=False, draining_since=None)


def _from(beat: Heartbeat, device: str, *, managed: bool, draining_since: float | None) -> Worker:
    return Worker(
        name=beat.name,
        model=beat.model,
        device=device,
        phase=Phase.DRAINING if draining_since is not None else _PHASES[beat.state],
        managed=managed,
        started_at=beat.started_at,
        pid=beat.pid,
        draining_since=draining_since,
        running=len(beat.running),
        free_slots=max(0, beat.capacity - len(beat.running)) if beat.state is WorkerState.READY else 0,
        jobs_per_s=beat.jobs_per_s,
        batch_size=beat.batch_size,
        load_s=beat.ready_at - beat.started_at if beat.ready_at is not None else 0.0,
        device_type=beat.device_type,
        device_uuid=beat.device_uuid,
    )


_PHASES = {
    WorkerState.LOADING: Phase.LOADING,
    WorkerState.READY: Phase.READY,
    WorkerState.DRAINING: Phase.DRAINING,
}
