"""The sweep: in every round of the leader, the jobs of lost workers return to their queues, model by model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scheduler.lease.queue import Queue

from .error_isolation import IsolatedErrors

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.settings import Settings


log = logging.getLogger(__name__)


class Sweep:
    """Reaps the queues of each model that is, or was, in the fleet file."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._settings: Settings | None = None
        self._queues: dict[str, Queue] = {}
        self._errors = IsolatedErrors(log)

    def __call__(self, settings: Settings) -> None:
        """Reap every queue. An error of one is logged once and does not stop the others.

        Raises:
            redis.RedisError: Redis cannot serve now.
        """
        if settings is not self._settings:
            # A model that left the file stays: its draining workers may still be lost.
            self._queues |= {name: Queue(self.redis, settings, name) for name in settings.models}
            self._settings = settings
        for name, queue in self._queues.items():
            with self._errors.isolated(name, "its lost jobs are not taken back"):
                queue.reap()
