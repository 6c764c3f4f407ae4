"""The launcher protocol: how a decision becomes a worker, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from producer.contract.errors import StokerError

if TYPE_CHECKING:
    from producer.contract.heartbeat import Heartbeat


class LaunchError(StokerError):
    """A worker could not be started at all."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A worker to be: a replica of ``model`` on ``device`` (``kind`` is ``cpu`` or ``cuda``), which is of ``type``.

    ``uuid`` is what it is bound to; ``device`` is only what people call that.
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
    """A worker that ended. ``asked`` tells whether it had been told to drain; one killed at once was not.

    ``cause`` is for people: how it ended, and the last lines that it wrote.
    """

    name: str
    model: str
    asked: bool
    lived_s: float
    cause: str


class Launcher(Protocol):
    """Starts and stops workers. Everything it must remember outlives its process."""

    @property
    def id(self) -> str:
        """Marks its workers (``Heartbeat.launched_by``). A restart keeps it; no other launcher has it."""

    def start(self, placement: Placement) -> str:
        """Start a worker, without waiting until it serves. Returns its name.

        Raises:
            LaunchError: naming the cause.
        """

    def drain(self, name: str, grace_s: float) -> None:
        """Tell a worker to finish what it runs and end; ``grace_s`` 0 ends it at once.

        Nobody kills it when ``grace_s`` seconds have passed: call again with 0. A worker that is
        gone, or not of this launcher, is left alone.
        """

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        """Take back the workers of its own among these that it has forgotten, as one killed in mid-start does."""

    def list(self) -> Sequence[Launched]:
        """Its workers that have not ended."""

    def ended(self) -> Sequence[Ended]:
        """Its workers that ended since this was last asked."""
