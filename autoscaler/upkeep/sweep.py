"""The sweep: in every round of the leader, the jobs of lost workers return to their queues, model by model, and
cancelled jobs leave theirs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.queue.withdrawal import Search
from producer.contract.server.dialogue import run
from scheduler.lease.queue import Queue

from ..error_isolation import IsolatedErrors

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings


log = logging.getLogger(__name__)

SEARCH_S = 0.2
"""Longest search of one round for cancelled jobs, in seconds; the next round goes on."""

AT_ONCE = 10_000
"""Most cancelled jobs whose search ends together."""


class Sweep:
    """Reaps the queues of each model that is, or was, in the fleet file."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._settings: Settings | None = None
        self._queues: dict[str, Queue] = {}
        self._errors = IsolatedErrors(log)
        self._search: Search | None = None
        self._cancelled: list[bytes] = []
        """The ids of the jobs that the search is for."""

    def __call__(self, settings: Settings) -> None:
        """Reap every queue, then withdraw cancelled jobs. An error of one is logged once and does not stop the others.

        Raises:
            redis.RedisError: Redis cannot serve now.
        """
        if settings is not self._settings:
            # A model that left the file stays: its draining workers may still be lost.
            self._queues |= {name: Queue(self.redis, settings, name) for name in settings.models}
            self._settings = settings
        for name, queue in self._queues.items():
            with self._errors.isolated(name, "its lost jobs are not taken back, nor its queued ones counted"):
                queue.reap()
                queue.recount()
        with self._errors.isolated("the cancelled jobs", "those that are queued count until a worker drops them"):
            self._withdraw(settings)

    def excuse(self, model: str, worker: str, counted: bool = False) -> None:
        """Return the jobs of a worker that has died of an outside cause, without a loss; see ``Queue.excuse``."""
        if (queue := self._queues.get(model)) is not None and (jobs := queue.excuse(worker, counted=counted)):
            log.info("%s held %d jobs, which count no loss", worker, jobs)

    def _withdraw(self, settings: Settings) -> None:
        """Remove cancelled jobs from the queues that the cancelling process did not find there."""
        if self._search is None:
            found: Any = self.redis.zrange(keys.withdrawals(), 0, AT_ONCE - 1)
            if not found:
                return
            self._cancelled, self._search = found, Search(settings)
        until = time.monotonic() + SEARCH_S
        while not self._search.done and time.monotonic() < until:
            run(self.redis, self._search.step())
        if self._search.done:
            self._search = None
            self.redis.zrem(keys.withdrawals(), *self._cancelled)
