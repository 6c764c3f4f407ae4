"""The watchdog: ends a worker whose engine holds jobs and makes no progress."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from producer.contract import heartbeat
from scheduler.lease.taker import NoTaker

from .app import WorkerApp

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
EXIT_HUNG = 5


class Watchdog:
    """Ends the process when the engine makes no progress for ``limits.stall_s`` while it holds jobs.

    The whole process, because a thread that hangs in a GPU kernel cannot be stopped. Its jobs go back at once, each
    with a counted loss, since one of them may be the cause.
    """

    def __init__(self, app: WorkerApp, die: Callable[[int], object] = os._exit) -> None:
        self._app = app
        self._die = die
        self._seen = -1
        self._since = time.monotonic()

    def look(self) -> None:
        """Check once; called every ``INTERVAL_S`` seconds."""
        assignment, pool = self._app.assignment, self._app.engine_pool
        if pool is None or pool.device.ready_at is None:
            return
        now, progress = time.monotonic(), assignment.engine.progress
        if progress != self._seen or not pool.running_jobs:
            self._seen, self._since = progress, now
            return
        limit = assignment.settings.model(assignment.model).limits.stall_s
        if now - self._since > limit:
            logger.critical(
                "the engine of model %s has made no progress for %.0f s (limits.stall_s) with %d jobs in it: giving up",
                assignment.model,
                now - self._since,
                len(pool.running_jobs),
            )
            assignment.ledger.taker = NoTaker()  # otherwise the event loop, which still runs, would claim them again
            heartbeat.remove(assignment.ledger.queue.redis, assignment.name)  # it would say "running" until it expires
            assignment.ledger.queue.expire(list(assignment.ledger.held))
            self._die(EXIT_HUNG)
