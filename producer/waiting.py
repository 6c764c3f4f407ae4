"""Where a job waits, and until when, as far as Redis tells."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError
from redis.exceptions import NoPermissionError, ResponseError

from . import envelope, heartbeat, keys
from .errors import UnknownTier
from .estimate import Ahead, Errors, Estimate, Situation, estimate
from .heartbeat import Heartbeat, WorkerState
from .job import Status
from .scripts import script

if TYPE_CHECKING:
    from redis import Redis

    from .settings import Settings

LOCATE_LUA = script(__package__, "locate.lua")
LOOK_AT = 5000
"""Most messages that are looked at from either end of a queue."""
START_S = 1.0
"""Until the autoscaler has noticed a first job and started a worker."""


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


class _Rate(BaseModel):
    tier: str
    arrivals_per_s: float = 0.0


class _Demand(BaseModel):
    tiers: list[_Rate] = []
    jobs_per_s: float = 0.0
    load_s: float = 0.0


class _Wanted(BaseModel):
    demand: _Demand = _Demand()
    hold: str = ""


class _Sizes(BaseModel):
    """What the autoscaler publishes, as far as it is needed here (``autoscaler/views.py``)."""

    models: dict[str, _Wanted] = {}


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
    if isinstance(stored, bytes) and envelope.is_final(stored):
        return Waiting(envelope.status(stored))
    beats = heartbeat.read_all(redis)
    for beat in beats:
        if heartbeat.mark(job_id) in beat.running:
            return Waiting(Status.RUNNING, beat.model)
    for name in [model] if model else settings.models:
        if found := _located(redis, settings, job_id, name, tier):
            told = estimate(_situation(redis, settings, name, found, beats), recall(redis, name).quantiles())
            return Waiting(Status.QUEUED, name, found.tier, found.ahead, found.exact, told)
    return Waiting(Status.QUEUED, exact=False)


def newcomer(redis: Redis, settings: Settings, model: str, tier: str) -> Estimate:
    """The estimate for a job that would be queued now.

    Raises:
        UnknownModel, UnknownTier: naming what there is.
        redis.RedisError: Redis is away.
    """
    settings.tier(model, tier)
    lengths = _lengths(redis, settings, model)
    place = _Place(tier, lengths[settings.model(model).tiers.index(tier)], lengths)
    found = _situation(redis, settings, model, place, heartbeat.read_all(redis))
    return estimate(found, recall(redis, model).quantiles())


@dataclass(frozen=True, slots=True)
class _Place:
    """A job's tier, how many of it are before it, and how many jobs wait in each queue of the model."""

    tier: str
    ahead: int
    lengths: Sequence[int]
    over_share: bool = False
    exact: bool = True


def _located(redis: Redis, settings: Settings, job_id: str, model: str, tier: str | None) -> _Place | None:
    tiers = settings.model(model).tiers
    if tier is not None and tier not in tiers:
        raise UnknownTier(f"model {model!r} has no tier {tier!r}; allowed: {', '.join(tiers)}")
    try:
        locate = redis.register_script(LOCATE_LUA)
        place, ahead, over_share, *lengths = locate([keys.queue(model, each) for each in tiers], [job_id, LOOK_AT])
        if place:
            return _Place(tiers[place - 1], ahead, lengths, bool(over_share))
        if max(lengths) <= 2 * LOOK_AT:
            return None
        of = tier or tiers[lengths.index(max(lengths))]
    except ResponseError as error:
        if not isinstance(error, NoPermissionError) and "ACL failure" not in str(error):
            raise
        if tier is None:
            raise NoPermissionError(str(error)) from error
        lengths, of = _lengths(redis, settings, model), tier
    return _Place(of, max(0, lengths[tiers.index(of)] - 1), lengths, exact=False)


def _lengths(redis: Redis, settings: Settings, model: str) -> list[int]:
    """Jobs waiting in each queue, those in tenants' lanes too."""
    queues = [keys.queue(model, tier) for tier in settings.model(model).tiers]
    with redis.pipeline(transaction=False) as pipe:
        pipe.hmget(keys.lanes(model), [f"jobs:{queue}" for queue in queues])
        for queue in queues:
            pipe.llen(queue)
        laned, *lengths = pipe.execute(raise_on_error=False)
    laned = laned if isinstance(laned, list) else [None] * len(queues)
    return [
        (length if isinstance(length, int) else 0) + int(more or 0) for length, more in zip(lengths, laned, strict=True)
    ]


def _situation(redis: Redis, settings: Settings, model: str, place: _Place, beats: Sequence[Heartbeat]) -> Situation:
    told = redis.get(keys.sizes())
    wanted = _Wanted()
    if isinstance(told, bytes):
        with contextlib.suppress(ValidationError):  # of another version: then nothing is known of rates
            wanted = _Sizes.model_validate_json(told).models.get(model, wanted)
    demand = wanted.demand
    rates = {rate.tier: rate.arrivals_per_s for rate in demand.tiers}
    now = time.time()
    own = [beat for beat in beats if beat.model == model and beat.state is not WorkerState.DRAINING]
    serving = [beat for beat in own if beat.state is WorkerState.READY]
    rate = demand.jobs_per_s or max((beat.jobs_per_s for beat in serving), default=0.0)
    running = sum(len(beat.running) for beat in serving) / max(1, len(serving))
    return Situation(
        tier=place.tier,
        tiers=[
            Ahead(
                each,
                settings.tiers[each].target_wait_s,
                place.ahead if each == place.tier else length,
                rates.get(each, 0.0),
            )
            for each, length in zip(settings.model(model).tiers, place.lengths, strict=True)
        ],
        ready_in_s=[
            0.0 if beat.state is WorkerState.READY else max(START_S, beat.started_at + demand.load_s - now)
            for beat in own
        ],
        places=settings.model(model).max_concurrency,
        free=sum(max(0, beat.capacity - len(beat.running)) for beat in serving),
        jobs_per_s=rate,
        load_s=demand.load_s + START_S if demand.load_s else 0.0,
        run_s=max(1.0, running) / rate if rate else 0.0,
        hindrance=wanted.hold,
        over_share=place.over_share,
        batches=settings.model(model).engine == "embed",
    )


def recall(redis: Redis, model: str) -> Errors:
    """What the autoscaler has learned of how far the model's estimates are off."""
    errors = Errors()
    stored = redis.get(keys.estimates(model))
    if isinstance(stored, bytes):
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # of another version
            errors.merge(json.loads(stored))
    return errors
