"""The position of a queued job, and its estimate, read from Redis by either kind of client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import NoPermissionError, ResponseError

from ..contract import heartbeat, keys
from ..contract.errors import UnknownTier
from ..contract.heartbeat import Heartbeat
from ..contract.message import celery_message
from ..contract.message.job import Status
from ..contract.server.dialogue import Dialogue, pipelined
from ..contract.server.lua import script
from .snapshot import Place, ask_lengths, lengths, read_snapshot
from .wait_time import Errors, Estimate, estimate

if TYPE_CHECKING:
    from redis import Redis

    from ..contract.fleet.settings import Settings

LOCATE_LUA = script(__package__, "locate.lua")
LOOK_AT = 5000
"""Most messages that are read from either end of a queue."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The state of a job. While it is queued, ``ahead`` jobs of its queue are before it. ``exact`` is false when
    ``ahead`` is an upper bound: the job is too deep in a long queue, or the Redis user may not read queues."""

    status: Status
    model: str = ""
    tier: str = ""
    ahead: int = 0
    exact: bool = True
    estimate: Estimate | None = None


def look(settings: Settings, job_id: str, model: str | None = None, tier: str | None = None) -> Dialogue[Waiting]:
    """The state of a job, and the estimate of its start and end.

    Args:
        model: of the job; by default all models are searched.
        tier: of the job; needed by Redis users that may not read queues.

    Raises:
        UnknownModel, UnknownTier: with those that exist.
        redis.RedisError: Redis is away.
    """
    stored = yield lambda redis: redis.get(keys.result(job_id))
    if isinstance(stored, bytes) and celery_message.is_final(stored):
        return Waiting(celery_message.status(stored))
    beats = yield from heartbeat.reading()
    for beat in beats:
        if heartbeat.mark(job_id) in beat.running:
            return Waiting(Status.RUNNING, beat.model)
    for name in [model] if model else settings.models:
        if found := (yield from _located(settings, job_id, name, tier)):
            told = yield from _estimated(settings, name, found, beats)
            return Waiting(Status.QUEUED, name, found.tier, found.ahead, found.exact, told)
    return Waiting(Status.QUEUED, exact=False)


def _estimated(settings: Settings, model: str, place: Place, beats: Sequence[Heartbeat]) -> Dialogue[Estimate]:
    sizes = yield lambda redis: redis.get(keys.sizes())
    of = read_snapshot(time.time(), sizes, settings, model, place, beats)
    errors = yield lambda redis: redis.get(keys.estimates(model))
    return estimate(of, Errors.loads(errors).quantiles())


def _located(settings: Settings, job_id: str, model: str, tier: str | None) -> Dialogue[Place | None]:
    tiers = settings.model(model).tiers
    if tier is not None and tier not in tiers:
        raise UnknownTier(f"model {model!r} has no tier {tier!r}; allowed: {', '.join(tiers)}")
    queues = [keys.queue(model, each) for each in tiers]
    try:
        told = yield lambda redis: redis.register_script(LOCATE_LUA)(queues, [job_id, LOOK_AT])
        place, ahead, over_share, *found = told
        if place:
            return Place(tiers[place - 1], ahead, found, bool(over_share))
        if max(found) <= 2 * LOOK_AT:
            return None
        of = tier or tiers[found.index(max(found))]
    except ResponseError as error:
        if not isinstance(error, NoPermissionError) and "ACL failure" not in str(error):
            raise
        if tier is None:
            raise NoPermissionError(str(error)) from error
        replies = yield pipelined(lambda pipe: ask_lengths(pipe, settings, model), raise_on_error=False)
        found, of = lengths(replies), tier
    return Place(of, max(0, found[tiers.index(of)] - 1), found, exact=False)


def recall(redis: Redis, model: str) -> Errors:
    """The errors of the model's estimates, as the autoscaler has learned them."""
    return Errors.loads(redis.get(keys.estimates(model)))
