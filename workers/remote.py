"""Remote control of a worker: what whoever may publish to the fleet's mailbox can make it do.

Celery obeys every command from everybody. A worker of a fleet is started, drained and sized by the autoscaler, and
its queues and limits come from the fleet file, so it keeps what looks, and ``revoke``; for the rest:
``shutdown`` and ``cancel_consumer`` would stop a worker or make it deaf, ``add_consumer`` point it at the queues of
others, ``rate_limit``, ``time_limit``, ``pool_*`` and ``autoscale`` change what the fleet file says,
``disable_events`` blind the monitor, ``revoke_by_stamped_headers`` cancel jobs without knowing their ids,
``mem*`` and ``objgraph`` write files.
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
    """Make this process refuse every other command, answering as to one that there is not."""
    kept = {Panel.data[name] for name in ALLOWED}  # some have a second name
    for name, command in list(Panel.data.items()):
        if command not in kept:
            del Panel.data[name]
