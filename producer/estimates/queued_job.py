"""Where a job waits, and until when, as far as Redis tells."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import NoPermissionError, ResponseError

from ..contract import celery_message, heartbeat, keys
from ..contract.errors import UnknownTier
from ..contract.job import Status
from ..contract.lua import script
from .snapshot import Place, ask_lengths, lengths, read_snapshot
from .wait_time import Errors, Estimate, estimate

if TYPE_CHECKING:
    from redis import Redis

    from ..contract.settings import Settings

LOCATE_LUA = script(__package__, "locate.lua")
LOOK_AT = 5000
"""Most messages that are looked at from either end of a queue."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where a job is. While it is queued, ``ahead`` jobs of its queue are before it, or at most so many when it could
    not be found (``exact`` is false): when it is deeper in a long queue than anybody looks, or we may not look."""

    status: Status
    model: str = ""
    tier: str = ""
    ahead: int = 0
    exact: bool = True
    estimate: Estimate | None = None


def look(redis: Redis, settings: Settings, job_id: str, model: str | None = None, tier: str | None = None) -> Waiting:
    """Where a job is, and when it will probably start and end.

    Args:
        model: where to look; by default at every model of the fleet.
        tier: where it was queued, for who may not look into queues.

    Raises:
        UnknownModel, UnknownTier: naming what there is.
        redis.RedisError: Redis is away.
    """
    stored = redis.get(keys.result(job_id))
    if isinstance(stored, bytes) and celery_message.is_final(stored):
        return Waiting(celery_message.status(stored))
    beats = heartbeat.read_all(redis)
    for beat in beats:
        if heartbeat.mark(job_id) in beat.running:
            return Waiting(Status.RUNNING, beat.model)
    for name in [model] if model else settings.models:
        if found := _located(redis, settings, job_id, name, tier):
            sizes = redis.get(keys.sizes())
            of = read_snapshot(time.time(), sizes, settings, name, found, beats)
            told = estimate(of, recall(redis, name).quantiles())
            return Waiting(Status.QUEUED, name, found.tier, found.ahead, found.exact, told)
    return Waiting(Status.QUEUED, exact=False)


def _located(redis: Redis, settings: Settings, job_id: str, model: str, tier: str | None) -> Place | None:
    tiers = settings.model(model).tiers
    if tier is not None and tier not in tiers:
        raise UnknownTier(f"model {model!r} has no tier {tier!r}; allowed: {', '.join(tiers)}")
    try:
        locate = redis.register_script(LOCATE_LUA)
        place, ahead, over_share, *found = locate([keys.queue(model, each) for each in tiers], [job_id, LOOK_AT])
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
        found, of = _lengths(redis, settings, model), tier
    return Place(of, max(0, found[tiers.index(of)] - 1), found, exact=False)


def _lengths(redis: Redis, settings: Settings, model: str) -> list[int]:
    """Jobs waiting in each queue, those in tenants' lanes too."""
    with redis.pipeline(transaction=False) as pipe:
        ask_lengths(pipe, settings, model)
        return lengths(pipe.execute(raise_on_error=False))


def recall(redis: Redis, model: str) -> Errors:
    """What the autoscaler has learned of how far the model's estimates are off."""
    return Errors.loads(redis.get(keys.estimates(model)))
