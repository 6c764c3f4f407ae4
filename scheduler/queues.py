"""What waits: the length and the oldest age of every queue, read in one round trip."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import NoPermissionError

from producer import keys

if TYPE_CHECKING:
    from redis import Redis

    from producer.settings import Settings

SUBMITTED_AT = re.compile(rb'"submitted_at": ?([0-9.]{1,20})')
"""The header with which our client stamps a message. Stock producers stamp none."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment. ``arrived`` counts every job ever pushed to it."""

    model: str
    tier: str
    length: int
    oldest_age_s: float
    arrived: int


@dataclass(frozen=True, slots=True)
class ModelQueues:
    """A model's queues, in the order of its tiers, and how many of its jobs workers hold."""

    model: str
    tiers: tuple[QueueState, ...]
    inflight: int
    dead: int
    suspects: int = 0
    """Jobs that may have killed their workers, each waiting to be run alone."""

    @property
    def queued(self) -> int:
        """Jobs waiting, over all tiers."""
        return sum(tier.length for tier in self.tiers) + self.suspects

    @property
    def arrived(self) -> int:
        """Jobs ever pushed, over all tiers."""
        return sum(tier.arrived for tier in self.tiers)


def observe(redis: Redis, settings: Settings) -> dict[str, ModelQueues]:
    """The queues of every model, by the server's clock.

    The oldest age comes from the head's own stamp. The head of a stock producer carries none: its age
    is then the time since the queue was last served, or first seen here; never more than its true age.
    """
    with redis.pipeline(transaction=True) as pipe:  # of one moment: a job counts as taken or as waiting, not as both
        pipe.time()
        for name, model in settings.models.items():
            pipe.hgetall(keys.served(name))
            pipe.hgetall(keys.taken(name))
            pipe.hlen(keys.inflight(name))
            pipe.xlen(keys.dead(name))
            pipe.llen(keys.suspects(name))
            for tier in model.tiers:
                pipe.llen(keys.queue(name, tier))
                pipe.lindex(keys.queue(name, tier), -1)
        answers = iter(pipe.execute())
    seconds, microseconds = next(answers)
    now = seconds + microseconds / 1e6
    found, unseen = {}, []
    for name, model in settings.models.items():
        served, taken, inflight, dead, suspects = (next(answers) for _ in range(5))
        tiers = []
        for tier in model.tiers:
            queue = keys.queue(name, tier).encode()
            length, head = next(answers), next(answers)
            if head is not None and queue not in served:
                unseen.append((keys.served(name), queue))
            age = _age(head, float(served.get(queue, now)), now) if head is not None else 0.0
            tiers.append(QueueState(name, tier, length, age, int(taken.get(queue, 0)) + length))
        found[name] = ModelQueues(name, tuple(tiers), inflight, dead, suspects)
    for key, queue in unseen:
        with contextlib.suppress(NoPermissionError):  # a monitor looks, and may not write it down
            redis.hsetnx(key, queue, f"{now:.6f}")
    return found


def _age(head: bytes, served_at: float, now: float) -> float:
    stamp = SUBMITTED_AT.search(head)
    return max(0.0, now - (float(stamp[1]) if stamp else served_at))
