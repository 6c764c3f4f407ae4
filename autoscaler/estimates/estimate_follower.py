"""Follows in Redis the jobs whose estimates are open, and stores the errors of estimates there."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

from redis.exceptions import NoPermissionError

from producer.contract import keys
from producer.contract.server.lua import script
from producer.estimates.queued_job import recall

from .estimate_calibration import EstimateCalibration

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings
    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import PublishedSize


LAST_QUEUED_LUA = script(__package__, "last_queued.lua")
MOST_TENANTS = 1000
"""Upper limit of the lanes that are searched for the last job of a queue."""
STATUS = re.compile(rb'\{"status": ?"([A-Z]+)"')
"""The beginning of a stored result: its status comes first (``scheduler/results.py``)."""
RAN = {b"SUCCESS": True, b"FAILURE": True, b"REVOKED": False}
"""Final statuses, and whether a worker ran the job to its end."""
STATUS_BYTES = 32
"""Bytes of a stored result that are read for its status: a whole result may have megabytes."""


class EstimateFollower:
    """A calibration for each model, which continues from the errors stored in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._last_queued = redis.register_script(LAST_QUEUED_LUA)
        self._own: dict[str, EstimateCalibration] = {}

    def forget(self) -> None:
        """Read the errors from Redis again, as after another autoscaler led."""
        self._own.clear()

    def look(self, now: float, settings: Settings, wanted: PublishedSize, beats: Sequence[Heartbeat]) -> None:
        """Learn what became of a model's earlier estimates, and make those of this round.

        Args:
            now: Unix seconds.
            wanted: what is published of the model in this round, and so what readers make their estimates from.
            beats: of workers of any model.

        Raises:
            redis.RedisError: what was learned could not be read or written.
        """
        model = wanted.demand.model
        own = self._own.get(model)
        if own is None:
            own = self._own[model] = EstimateCalibration(recall(self._redis, model))
        time_limit_s = settings.models[model].limits.time_limit_s
        if own.learn(now, wanted.demand, self.ended(own.followed), time_limit_s):
            self._redis.set(keys.estimates(model), own.errors.dumps())
        for estimate in own.make(now, settings, wanted, beats):
            estimate.job_id = self._last_of(keys.queue(model, estimate.tier))

    def ended(self, jobs: Collection[str]) -> dict[str, bool]:
        """Those of the jobs that have ended, and whether a worker ran them to their end. A job that was cancelled, or
        expired, was not."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in jobs:
                pipe.getrange(keys.result(job_id), 0, STATUS_BYTES - 1)
            replies = pipe.execute(raise_on_error=False)
        ended = {}
        for job_id, stored in zip(jobs, replies, strict=True):
            if isinstance(stored, NoPermissionError):
                raise stored
            # A value of another type under the key of a result is not a result.
            if isinstance(stored, bytes) and (status := STATUS.match(stored)) and status[1] in RAN:
                ended[job_id] = RAN[status[1]]
        return ended

    def _last_of(self, queue: str) -> str:
        """The id of the last job of a queue; empty when there is none any more."""
        return cast(bytes, self._last_queued([queue], [MOST_TENANTS])).decode()
