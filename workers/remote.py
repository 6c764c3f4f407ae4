"""Remote control of a worker: the commands that a client of the fleet's mailbox may send.

Celery obeys every command from every client. A worker of a fleet is started, drained and sized by the autoscaler, and
its queues and limits come from the fleet file. So it keeps the commands that only read, and ``revoke``. Of the rest,
``shutdown`` and ``cancel_consumer`` would stop the worker or its consumer, ``add_consumer`` would point it at other
queues, ``rate_limit``, ``time_limit``, ``pool_*`` and ``autoscale`` would override the fleet file, ``disable_events``
would blind the monitor, ``revoke_by_stamped_headers`` would cancel jobs without their ids, ``mem*`` and ``objgraph``
write files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.worker.control import Panel
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


def restrict() -> None:
    """Make this process refuse every other command, as an unknown one."""
    kept = {Panel.data[name] for name in ALLOWED}  # some have a second name
    for name, command in list(Panel.data.items()):
        if command not in kept:
            del Panel.data[name]
    for name in ("revoke", "terminate"):
        Panel.data[name] = _remembered(Panel.data[name])


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
