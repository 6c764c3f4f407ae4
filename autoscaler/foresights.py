"""Estimates of every model, and their errors in Redis, where readers find them and where they outlive us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from producer.estimates.queued_job import recall

from .estimate_calibration import EstimateCalibration

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.settings import Settings
    from scheduler.queue_lengths import ModelQueues

    from .journal import Journal
    from .roster import Worker
    from .sizing.demand import Demand


class Foresights:
    """A foresight for each model; it goes on from what was learned before."""

    def __init__(self, redis: Redis, journal: Journal) -> None:
        self._redis, self._journal = redis, journal
        self._own: dict[str, EstimateCalibration] = {}

    def forget(self) -> None:
        """Begin anew, from what is in Redis: somebody else has led meanwhile."""
        self._own.clear()

    def look(
        self, now: float, settings: Settings, queues: ModelQueues, demand: Demand, workers: Sequence[Worker]
    ) -> None:
        """Another look at a model's queues.

        Raises:
            redis.RedisError: what was learned could not be read or written.
        """
        own = self._own.get(queues.model)
        if own is None:
            own = self._own[queues.model] = EstimateCalibration(recall(self._redis, queues.model))
        if own.look(now, settings, queues, demand, workers):
            self._journal.learned(queues.model, own.errors)
