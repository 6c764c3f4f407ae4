"""Estimates of every model, and their errors in Redis, where readers find them and where they outlive us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from producer.estimates.queued_job import recall

from .estimate_calibration import EstimateCalibration

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.heartbeat import Heartbeat
    from producer.contract.settings import Settings

    from .journal import Journal
    from .published_view import Wanted


class Foresights:
    """A foresight for each model; it goes on from what was learned before."""

    def __init__(self, redis: Redis, journal: Journal) -> None:
        self._redis, self._journal = redis, journal
        self._own: dict[str, EstimateCalibration] = {}

    def forget(self) -> None:
        """Begin anew, from what is in Redis: somebody else has led meanwhile."""
        self._own.clear()

    def look(self, now: float, settings: Settings, wanted: Wanted, beats: Sequence[Heartbeat]) -> None:
        """Another look at the queues of a model; see :meth:`EstimateCalibration.look`.

        Raises:
            redis.RedisError: what was learned could not be read or written.
        """
        model = wanted.demand.model
        own = self._own.get(model)
        if own is None:
            own = self._own[model] = EstimateCalibration(recall(self._redis, model))
        if own.look(now, settings, wanted, beats):
            self._journal.learned(model, own.errors)
