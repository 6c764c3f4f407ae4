"""The launcher protocol: starting and stopping workers, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from producer.contract.errors import StokerError

if TYPE_CHECKING:
    from producer.contract.heartbeat import Heartbeat


class LaunchError(StokerError):
    """A worker could not be started."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where to start a worker of ``model``: on ``device``, which is of ``kind`` ``cpu`` or ``cuda`` and of ``type``.

    The worker is bound to the device by ``uuid``; ``device`` is its display name.
    """

    model: str
    device: str
    kind: str
    type: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker that this launcher started and that has not ended. Times are Unix seconds."""

    name: str
    model: str
    device: str
    pid: int | None
    started_at: float
    draining_since: float | None = None
    device_uuid: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that ended. ``asked`` is True if it was draining, not if it was killed without grace; ``outside`` if it
    was killed and none of its jobs need be the cause, as when the memory of the machine ran out.

    ``cause`` is for display: how it ended, and the last lines of its log. ``device_key`` identifies its device
    (:attr:`~autoscaler.devices.device.Device.key`); empty when the launcher does not know it.
    """

    name: str
    model: str
    asked: bool
    lived_s: float
    cause: str
    outside: bool = False
    device_key: str = ""


class Launcher(Protocol):
    """Starts and stops workers. Its state outlives its process."""

    @property
    def id(self) -> str:
        """The mark of its workers (``Heartbeat.launched_by``), unique to this launcher and the same after a restart."""

    def start(self, placement: Placement) -> str:
        """Start a worker and return its name, without waiting until it serves.

        Raises:
            LaunchError: it could not be started; the message names the cause.
        """

    def drain(self, name: str, grace_s: float) -> None:
        """Ask a worker to finish its jobs and end; with ``grace_s`` 0, kill it.

        The worker is not killed after ``grace_s`` seconds: the caller does so by another call with 0. Nothing happens
        when the worker has ended or is not of this launcher.
        """

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        """Record its own workers among these that it has no record of, as after it was killed during a start."""

    def list(self) -> Sequence[Launched]:
        """Its workers that have not ended."""

    def ended(self) -> Sequence[Ended]:
        """Its workers that ended since the last call."""
