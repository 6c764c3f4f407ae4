"""Strays: jobs in lists that no worker of the fleet reads.

A job becomes a stray by a queue name that belongs to no model and tier of ``fleet.toml`` (a typing error, a renamed
model), or by a Celery ``priority``, for which a stock producer pushes to another list beside the queue, or by a
``global_keyprefix`` of the producer, which stands before the queue's name.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.contract import keys
from producer.contract.message.job import TASK

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings

# Kombu's names (kombu.transport.redis: keyprefix_queue, sep, PRIORITY_STEPS); a test compares them.
BINDINGS = "_kombu.binding."
SEPARATOR = "\x06\x16"
PRIORITIES = (3, 6, 9)
INTERNAL = ("celery.pidbox", "celeryev", "reply.celery.pidbox")
"""Exchanges of Celery's remote control and events, which carry no jobs."""
SCAN_COUNT = 10_000
SCANS = 100
"""Maximum of SCAN calls, and so of a million keys: a longer scan would delay the server's other clients."""
PREFIXES = 100
"""Maximum of prefixes under which the fleet's queues are looked for."""


@dataclass(frozen=True, slots=True)
class Stray:
    """The number of jobs in lists of a queue that no worker reads, and the cure."""

    queue: str
    waiting: int
    cure: str


def find(redis: Redis, settings: Settings) -> list[Stray]:
    """All strays that hold jobs, in the order of their queues' names."""
    ours = {keys.queue(name, tier) for name, model in settings.models.items() for tier in model.tiers}
    tables = _tables(redis)
    found = _prefixed(redis, ours, tables)
    for queue in sorted(_bound(redis, tables) | ours):
        plain, beside = _lengths(redis, queue)
        if queue not in ours and plain + beside and _of_the_fleet(redis, queue, settings):
            cure = "no model of fleet.toml has this queue: add the model, or send to MODEL.TIER"
            found.append(Stray(queue, plain + beside, cure))
        elif beside:
            cure = "sent with a Celery priority, which Stoker does not read: send without, and choose a tier"
            found.append(Stray(queue, beside, cure))
    return sorted(found, key=lambda stray: stray.queue)


def _prefixed(redis: Redis, ours: Set[str], tables: Set[str]) -> list[Stray]:
    """Jobs in lists that have the name of a queue after a prefix."""
    prefixes = sorted({table.partition(BINDINGS)[0] for table in tables} - {""})[:PREFIXES]
    lists = [(prefix, prefix + queue) for prefix in prefixes for queue in sorted(ours)]
    with redis.pipeline(transaction=False) as pipe:
        for _, name in lists:
            pipe.llen(name)
        lengths = pipe.execute(raise_on_error=False)  # of what another application has stored there, too
    cure = "sent with global_keyprefix = {!r}, which Stoker does not read: send without"
    return [
        Stray(name, length, cure.format(prefix))
        for (prefix, name), length in zip(lists, lengths, strict=True)
        if isinstance(length, int) and length
    ]


def _of_the_fleet(redis: Redis, queue: str, settings: Settings) -> bool:
    """Whether the jobs of a queue are meant for the fleet: by the queue's name, or its newest or oldest message.

    Another application may have queues of its own on the same server.
    """
    if queue.partition(".")[0] in settings.models:
        return True
    ends = [redis.lindex(queue, 0), redis.lindex(queue, -1)]
    return any(f'"{TASK}"' in _text(end) for end in ends if end is not None)


def _tables(redis: Redis) -> set[str]:
    """Kombu's tables of bindings, with any prefix: what stock producers and workers have declared."""
    tables: set[str] = set()
    cursor = 0
    for _ in range(SCANS):
        cursor, found = redis.scan(cursor, match=f"*{BINDINGS}*", count=SCAN_COUNT, _type="SET")
        tables |= set(map(_text, found))
        if cursor == 0:
            break
    return tables


def _bound(redis: Redis, tables: Set[str]) -> set[str]:
    """The queues of the tables without a prefix."""
    queues: set[str] = set()
    for table in tables:
        prefix, _, exchange = table.partition(BINDINGS)
        if not prefix and exchange not in INTERNAL:
            queues |= {_text(member).rsplit(SEPARATOR, 1)[-1] for member in redis.smembers(table)}
    return queues - {""}


def _lengths(redis: Redis, queue: str) -> tuple[int, int]:
    """The numbers of jobs in the queue's own list and in the lists of its priorities."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.llen(queue)
        for priority in PRIORITIES:
            pipe.llen(f"{queue}{SEPARATOR}{priority}")
        plain, *beside = pipe.execute()
    return plain, sum(beside)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
