"""Remote control of a worker: the commands that a client of the fleet's mailbox may send.

Celery obeys every command from every client. A worker of a fleet is started, drained and sized by the autoscaler, and
its queues and limits come from the fleet file. So it keeps the commands that only read, and ``revoke``. Of the rest,
``shutdown`` and ``cancel_consumer`` would stop the worker or its consumer, ``add_consumer`` would point it at other
queues, ``rate_limit``, ``time_limit``, ``pool_*`` and ``autoscale`` would override the fleet file, ``disable_events``
would blind the monitor, ``revoke_by_stamped_headers`` would cancel jobs without their ids, ``mem*`` and ``objgraph``
write files.
"""

from __future__ import annotations

from celery.worker.control import Panel

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
