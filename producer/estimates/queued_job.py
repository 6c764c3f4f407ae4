"""Where a job waits, and until when, as far as Redis tells either kind of client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import NoPermissionError, ResponseError

from ..contract import celery_message, heartbeat, keys
from ..contract.dialogue import Dialogue, pipelined
from ..contract.errors import UnknownTier
from ..contract.heartbeat import Heartbeat
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


def look(settings: Settings, job_id: str, model: str | None = None, tier: str | None = None) -> Dialogue[Waiting]:
    """Where a job is, and when it will probably start and end.

    Args:
        model: where to look; by default at every model of the fleet.
        tier: where it was queued, for who may not look into queues.

    Raises:
        UnknownModel, UnknownTier: naming what there is.
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
    """What the autoscaler has learned of how far the model's estimates are off."""
    return Errors.loads(redis.get(keys.estimates(model)))
