"""A running job, as the pool keeps it and as Celery's remote control sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from producer.contract.fleet.tenants import DEFAULT
from producer.contract.message.job import TASK, Job
from scheduler.message import Message


@dataclass(slots=True, weakref_slot=True, eq=False)
class Running:
    """One job, from its claim to its end.

    ``name``, ``info`` and ``terminate`` are what Celery's ``inspect active``, ``query_task`` and ``revoke`` ask of
    its own ``Request`` (``celery/worker/control.py``); ``eventer`` is what it sets after a reconnect.
    """

    lease: str
    queue: str
    message: Message
    waited_s: float | None
    """From submission to the claim, for producers that stamp their messages."""
    end: Callable[[Running], None]
    """Called when an operator revokes the job."""
    job: Job | None = None
    deadline: float | None = None
    """When it expires, in seconds of the monotonic clock."""
    overdue_at: float = float("inf")
    """When its time limit passes, in seconds of the monotonic clock."""
    time_limit_s: float = 0.0
    stopped: Exception | str | None = None
    """Why the engine was asked to give it up: an error, or ``terminated`` or ``expired``."""
    started_at: float = field(default_factory=time.time)
    eventer: object = None

    name = TASK

    @property
    def id(self) -> str:
        """The job's id."""
        return self.message.id

    @property
    def tenant(self) -> str:
        """The tenant of the job."""
        return self.job.tenant if self.job is not None else DEFAULT

    @property
    def inputs(self) -> int:
        """Number of its inputs."""
        return len(self.job.items) if self.job is not None else 0

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002  Celery asks for it safe or not; it is
        """The fields that ``celery inspect active`` shows; never the input."""
        return {
            "id": self.id,
            "name": self.name,
            "args": [],
            "kwargs": self.message.told.get("kwargsrepr", ""),
            "type": self.name,
            "hostname": None,
            "time_start": self.started_at,
            "acknowledged": False,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
            "worker_pid": os.getpid(),
        }

    def terminate(self, pool: object, signal: object = None) -> None:  # noqa: ARG002  there is no process to signal
        """End the job; Celery calls this to revoke a task."""
        self.end(self)
