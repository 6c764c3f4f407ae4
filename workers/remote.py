"""Remote control of a worker: which messages to the fleet's mailbox are commands that it obeys.

Celery obeys every command from every client. A worker of a fleet is started, drained and sized by the autoscaler, and
its queues and limits come from the fleet file. So it keeps the commands that only read, and ``revoke``. Of the rest,
``shutdown`` and ``cancel_consumer`` would stop the worker or its consumer, ``add_consumer`` would point it at other
queues, ``rate_limit``, ``time_limit``, ``pool_*`` and ``autoscale`` would override the fleet file, ``disable_events``
would blind the monitor, ``revoke_by_stamped_headers`` would cancel jobs without their ids, ``mem*`` and ``objgraph``
write files.

Every client that may publish can fill the mailbox with anything. Celery logs a traceback for most of it, and connects
anew for some. So a message is checked before Kombu reads it; one that is no command is dropped and logged in one line.
"""

from __future__ import annotations

import base64
import logging
import math
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.worker.control import Panel
from kombu.utils.json import loads
from redis.exceptions import RedisError

from producer.contract.message.celery_message import ids_of
from producer.contract.queue.withdrawal import remember
from producer.contract.server.dialogue import run
from scheduler.lease.queue import Queue

logger = logging.getLogger(__name__)

ALLOWED = frozenset(
    {
        "active",
        "active_queues",
        "clock",
        "conf",  # Celery masks the credentials in it
        "enable_events",  # every monitor asks for it when it starts
        "heartbeat",
        "ping",
        "query_task",
        "registered",
        "report",
        "reserved",
        "revoke",
        "revoked",
        "scheduled",
        "stats",
        "terminate",  # of one job by its id; there is no process to signal
    }
)

FIELDS = frozenset({"method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket"})
"""The fields of a command in Kombu's format (``kombu/pidbox.py``)."""
LINE_EVERY_S = 60.0
"""Least time between two lines about dropped messages, in seconds."""
TOLD = 200
"""Most characters of a reason that are logged."""


class RemoteControl:
    """Decides which messages to the mailbox reach Celery, and logs the others at a bounded rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = -math.inf
        self._untold = 0

    def __json__(self) -> str:
        return repr(self)  # Celery shows the transport's options on request

    def restrict(self) -> None:
        """Make this process refuse every other command, as an unknown one."""
        kept = {Panel.data[name] for name in ALLOWED}  # some have a second name
        commands = _Commands(self._unknown)
        for name, command in Panel.data.items():
            if command in kept:
                remembered = _remembered(command) if name in ("revoke", "terminate") else command
                commands[name] = self._answering(remembered)
        Panel.data = commands

    def admits(self, document: bytes) -> bool:
        """Whether a message to the mailbox is a command in Celery's format; logs why not."""
        if why := fault(document):
            self._drop(why)
        return not why

    def _unknown(self, name: str) -> Callable[..., Any]:
        """What answers a command that workers do not obey, as Celery answers one that it does not know."""

        def refuse(*_: Any, **__: Any) -> dict[str, str]:
            self._drop(f"{name!r} is no command that workers obey")
            return {"error": repr(KeyError(name))}

        return refuse

    def _answering(self, command: Callable[..., Any]) -> Callable[..., Any]:
        """A command that answers whoever sends wrong arguments with the error, as Celery does, and logs one line."""

        @wraps(command)
        def answering(state: Any, *args: Any, **arguments: Any) -> Any:
            try:
                return command(state, *args, **arguments)
            except Exception as error:  # whatever it makes of a stranger's arguments
                self._drop(f"{command.__name__}: {error!r}")
                return {"error": repr(error)}

        return answering

    def _drop(self, why: str) -> None:
        if self._clock() - self._told_at < LINE_EVERY_S:
            self._untold += 1
            return
        more = f"; so were {self._untold} more since the last such line" if self._untold else ""
        logger.warning("a message of remote control was dropped: %s%s", why[:TOLD], more)
        self._told_at, self._untold = self._clock(), 0


class _Commands(dict[str, Callable[..., Any]]):
    """The commands by name.

    Args:
        unknown: makes the handler of a name that is no command.
    """

    def __init__(self, unknown: Callable[[str], Callable[..., Any]]) -> None:
        super().__init__()
        self._unknown = unknown

    def __missing__(self, name: str) -> Callable[..., Any]:
        return self._unknown(name)


def fault(document: bytes) -> str:
    """Why a message to the mailbox is no command in Celery's format; empty if it is one, known or not."""
    try:
        envelope = loads(document)
        command = loads(base64.b64decode(envelope["body"], validate=True))
        properties, headers = envelope["properties"], envelope.get("headers") or {}
        readable = (
            envelope.get("content-type") == "application/json"
            and envelope.get("content-encoding") == "utf-8"
            and properties["body_encoding"] == "base64"
            and isinstance(properties["delivery_tag"], str)
            and isinstance(properties["delivery_info"], dict)
            and isinstance(headers.get("clock") or 0, int)
            and "compression" not in headers
        )
        return _fault_of_command(command) if readable else "it is not a message of Celery in JSON"
    except Exception as error:  # Kombu's reader makes dates, numbers and texts of what claims to be one
        return f"it is not a message of Celery in JSON ({type(error).__name__})"


def _fault_of_command(command: dict[str, Any]) -> str:
    method, target, reply = command["method"], command.get("destination"), command.get("reply_to")
    if unknown := command.keys() - FIELDS:
        return f"a command has no field {min(unknown)!r}"
    if not isinstance(method, str):
        return "its method is no text"
    if not isinstance(command.get("arguments") or {}, dict):
        return f"the arguments of {method} are no JSON object"
    if target and not (isinstance(target, list) and all(isinstance(name, str) for name in target)):
        return "its destination is no list of workers"
    if command.get("pattern") and (not isinstance(command["pattern"], str) or command.get("matcher") != "glob"):
        return "its pattern is not a glob"  # a regular expression can keep a worker busy for hours
    if reply and not all(isinstance(reply[name], str) for name in ("exchange", "routing_key")):
        return "it says not where its answer goes"
    return ""


def _remembered(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that revokes jobs, and has them remembered: the worker that hears it may be replaced before it takes
    them, and others may hear nothing."""

    @wraps(command)
    def remembering(state: Any, *args: Any, **arguments: Any) -> Any:
        queue: Queue = state.app.assignment.ledger.queue
        try:
            run(queue.redis, remember(state.app.assignment.settings, ids_of(arguments.get("task_id"))))
        except RedisError as error:
            logger.warning("revoked jobs cannot be remembered now, only this worker knows of them: %s", error)
        return command(state, *args, **arguments)

    return remembering
