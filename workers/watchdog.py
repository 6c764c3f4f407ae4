"""The watchdog: an engine that holds work and gets nothing done is hung, and so is its worker."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from producer.contract import heartbeat
from scheduler.lease.ledger import Nobody

from .app import WorkerApp

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
EXIT_HUNG = 5


class Watchdog:
    """Ends the process when the engine stands still for ``limits.stall_s`` with work in it.

    The process, because a thread that hangs in a kernel cannot be stopped. Its jobs go elsewhere at once, each with
    a loss counted, for one of them may be what hangs it.
    """

    def __init__(self, app: WorkerApp, die: Callable[[int], object] = os._exit) -> None:
        self._app = app
        self._die = die
        self._seen = -1
        self._since = time.monotonic()

    def look(self) -> None:
        """Look once; called every ``INTERVAL_S`` seconds."""
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
            assignment.ledger.taker = Nobody()  # or the event loop, which is well, would take them back at once
            heartbeat.remove(assignment.ledger.queue.redis, assignment.name)  # it would say 'running' until it expires
            assignment.ledger.queue.expire(list(assignment.ledger.held))
            self._die(EXIT_HUNG)
