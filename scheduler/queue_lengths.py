"""Lengths and oldest ages of all queues, read in one round trip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from producer.contract import keys
from producer.contract.queue.lanes import jobs_in_lanes
from producer.contract.server.redis_errors import optional_write

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings

SUBMITTED_AT = re.compile(rb'"submitted_at": ?([0-9]{1,12}(?:[.][0-9]{1,9})?)[,}]')
"""The header with the time stamp of Stoker's client. Stock producers send none."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment. ``arrived`` counts every job ever pushed to it."""

    model: str
    tier: str
    length: int
    """Queued jobs, in the plain list and in tenants' lanes."""
    oldest_age_s: float
    """By the producer's time stamp, if there is one: untrusted, only to be shown."""
    waited_s: float
    """How long its head was passed over, by the server's clock."""
    arrived: int


@dataclass(frozen=True, slots=True)
class ModelQueues:
    """A model's queues, in the order of its tiers, and the number of its jobs in flight."""

    model: str
    tiers: tuple[QueueState, ...]
    inflight: int
    dead: int
    suspects: int = 0
    """Suspects: jobs that may have killed their workers, each queued to run alone."""
    deferred: int = 0
    """Deferred jobs, which will be tried again."""

    @property
    def queued(self) -> int:
        """Queued jobs of all tiers."""
        return sum(tier.length for tier in self.tiers) + self.suspects

    @property
    def arrived(self) -> int:
        """Jobs ever pushed, over all tiers."""
        return sum(tier.arrived for tier in self.tiers)


def observe(redis: Redis, settings: Settings) -> dict[str, ModelQueues]:
    """The queues of every model at one moment, by the server's clock.

    A key of a wrong type under one queue's name does not affect the other queues.
    """
    with redis.pipeline(transaction=True) as pipe:  # atomic: a job counts as either claimed or queued
        pipe.time()
        for name, model in settings.models.items():
            pipe.hgetall(keys.served(name))
            pipe.hgetall(keys.taken(name))
            pipe.hmget(keys.lanes(name), [f"jobs:{keys.queue(name, tier)}" for tier in model.tiers])
            pipe.hlen(keys.inflight(name))
            pipe.xlen(keys.dead(name))
            pipe.llen(keys.suspects(name))
            pipe.zcard(keys.deferred(name))
            for tier in model.tiers:
                pipe.llen(keys.queue(name, tier))
                pipe.lindex(keys.queue(name, tier), -1)
        answers = iter(pipe.execute(raise_on_error=False))
    seconds, microseconds = _sound(next(answers), (0, 0))
    now = seconds + microseconds / 1e6
    found, unseen = {}, []
    for name, model in settings.models.items():
        served, taken = (_sound(next(answers), {}) for _ in range(2))
        lanes = _sound(next(answers), [None] * len(model.tiers))
        inflight, dead, suspects, deferred = (_sound(next(answers), 0) for _ in range(4))
        tiers = []
        for tier, laned in zip(model.tiers, lanes, strict=True):
            queue = keys.queue(name, tier).encode()
            length, head = _sound(next(answers), 0), _sound(next(answers), None)
            length += jobs_in_lanes(laned)
            if length and queue not in served:
                unseen.append((keys.served(name), queue))
            waited = max(0.0, now - float(served.get(queue, now))) if length else 0.0
            age = waited if head is None else _age(head, now, waited)
            tiers.append(QueueState(name, tier, length, age, waited, int(taken.get(queue, 0)) + length))
        found[name] = ModelQueues(name, tuple(tiers), inflight, dead, suspects, deferred)
    for key, queue in unseen:
        with optional_write():
            redis.hsetnx(key, queue, f"{now:.6f}")
    return found


def _sound(answer: Any, otherwise: Any) -> Any:
    """A reply, or the default when the key holds another type than this project writes."""
    return otherwise if isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer) else _raised(answer)


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _age(head: bytes, now: float, waited: float) -> float:
    """The age of a head by its stamp; of one without, how long it was passed over, which is never more."""
    stamp = SUBMITTED_AT.search(head)
    return max(0.0, now - float(stamp[1])) if stamp else waited
