"""The roles that submit jobs: none of them decides whose turn it is, and none writes results."""

from __future__ import annotations

from producer.contract import keys

from . import scripts
from .grants import CANCELLED, PIDBOX, RESULT, Grant, GrantScope, running, tables

OPEN_BATCHES = (keys.open_batches(), keys.open_batches_of("*"), keys.open_tenants())


def producer(fleet: GrantScope) -> list[Grant]:
    """:class:`producer.Client`: submits, collects and cancels jobs. It cannot read queued jobs, nor write results."""
    marked = [*fleet.queues, *fleet.of_models(keys.waiting, keys.lanes), keys.submission("*")]
    return [
        running([scripts.SUBMIT], marked),
        running([scripts.CANCEL], [RESULT, *CANCELLED, keys.cancellations()]),
        Grant(["lpush", "llen"], fleet.queues),
        *_lanes(fleet),
        Grant(["hset"], fleet.of_models(keys.waiting)),
        *_counts(fleet),
        Grant(["xread", "xrange"], [keys.stream("*"), keys.bell("*")]),
        Grant(["xadd", "pexpire"], [keys.bell("*")]),
        Grant(["set", "get"], [keys.submission("*")]),
        Grant(["get", "mget", "del", "subscribe"], [RESULT], [RESULT]),
        Grant(["del"], [keys.submission("*"), RESULT]),
        Grant(["zadd", "zscore"], CANCELLED),
        Grant(["lpush"], [keys.cancellations()]),
        Grant(["get", "mget"], [keys.worker("*")]),
        Grant(["zrange", "zrangebyscore"], [keys.workers()]),
        Grant(["exists"], [keys.leader()]),
        Grant(["get"], fleet.forecasts),
        # Publish only: a subscriber would receive the revocations of every tenant's jobs.
        Grant(["publish"], channels=[fleet.pidbox]),
    ]


def gateway(fleet: GrantScope) -> list[Grant]:
    """The gateway: a producer that looks into queues and up API keys, and records the tenant of each stored job."""
    return [
        *producer(fleet),
        *_reading(fleet),
        running([scripts.LOCATE], fleet.queues),
        running([scripts.ADMIT], [keys.api_keys(), keys.rate("*")]),
        running([scripts.CLAIM_WEBHOOKS], [keys.webhooks()]),
        running([scripts.CANCEL_BATCH], [keys.batch("*")]),
        Grant(["hget", "hgetall", "hlen"], [keys.api_keys()]),
        Grant(["get", "set"], [keys.rate("*"), keys.idempotency("*")]),
        Grant(["unlink", "pexpire"], [RESULT, keys.stream("*"), keys.submission("*")]),
        Grant(["get", "mget", "set", "del"], [keys.job_record("*")]),
        Grant(["mget"], [keys.job_record("*"), RESULT]),
        Grant(["zadd", "zrem", "zrangebyscore"], [keys.webhooks()]),
        Grant(["hget"], fleet.of_models(keys.served, keys.waiting)),
        *_registry(),
        Grant(["hset", "hget", "hsetnx"], [keys.batch("*")]),
        Grant(["zadd"], [keys.batches("*"), *OPEN_BATCHES]),
        Grant(["zrevrangebylex", "zrem"], [keys.batches("*")]),
        Grant(["zrangebylex"], [keys.open_batches_of("*")]),
        Grant(["del"], [keys.batch("*")]),
    ]


def batches(fleet: GrantScope) -> list[Grant]:
    """The batch process: a producer that looks into queues, and runs batches."""
    return [
        *producer(fleet),
        *_reading(fleet),
        *_registry(),
        running([scripts.COMMIT_BATCH], [keys.batch("*"), keys.batch_lease("*"), keys.batch_parts("*"), *OPEN_BATCHES]),
        Grant(["hset", "hget", "hincrby"], [keys.batch("*")]),
        Grant(["hsetnx", "hgetall", "del"], [keys.batch_parts("*")]),
        Grant(["set", "get", "pexpire", "del"], [keys.batch_lease("*")]),
        Grant(["zrangebylex", "zrange", "zrem", "exists"], OPEN_BATCHES),
        Grant(["mget"], [keys.batch_lease("*")]),
        Grant(["hgetall"], [keys.api_keys()]),
    ]


def stock(fleet: GrantScope) -> list[Grant]:
    """A Celery application without Stoker's client: ``send_task``, ``AsyncResult``, ``revoke``."""
    return [
        Grant(["lpush", "llen"], [*fleet.queues, *fleet.priorities]),
        Grant(["sadd", "smembers"], tables([*fleet.queues, PIDBOX])),
        Grant(["get", "mget", "del", "subscribe"], [RESULT], [RESULT]),
        Grant(["publish"], channels=[fleet.pidbox, fleet.events]),
    ]


def _registry() -> list[Grant]:
    """The records of batches and of their files."""
    return [
        Grant(["get", "mget", "set", "del"], [keys.file("*")]),
        Grant(["zadd", "zrem", "zrangebylex", "zrevrangebylex"], [keys.files("*")]),
        Grant(["hgetall"], [keys.batch("*")]),
    ]


def _counts(fleet: GrantScope) -> list[Grant]:
    """What ``gone.lua`` counts of jobs that are not queued."""
    return [
        Grant(["hlen"], fleet.of_models(keys.inflight)),
        Grant(["llen"], fleet.of_models(keys.suspects)),
        Grant(["zcard"], fleet.of_models(keys.deferred)),
    ]


def _lanes(fleet: GrantScope) -> list[Grant]:
    """What ``submit.lua`` writes to the lanes of tenants, and what admission counts in them.

    Whose turn it is (``keys.counters``), and what jobs make on average (``keys.accounts``), is out of reach: claims
    write that, and give a counter to the tenants that producers name (``keys.entrants``).
    """
    return [
        Grant(["lpush", "llen"], fleet.of_models(keys.any_lane)),
        Grant(["zadd", "zcard", "zcount"], fleet.of_models(keys.any_dated)),
        Grant(["zadd"], fleet.of_tiers(keys.due)),
        Grant(["zscore", "zcard"], fleet.of_tiers(keys.counters)),
        Grant(["sadd", "scard"], fleet.of_tiers(keys.entrants)),
        Grant(["hget"], fleet.of_tiers(keys.reached)),
        Grant(["hget", "hmget", "hincrby"], fleet.of_models(keys.lanes)),
        Grant(["exists", "lpush"], fleet.of_tiers(keys.wake)),
    ]


def _reading(fleet: GrantScope) -> list[Grant]:
    """What ``gone.lua`` and ``locate.lua`` read to find a job where jobs wait and run."""
    return [
        Grant(["hscan"], fleet.of_models(keys.inflight)),
        Grant(["lrange"], [*fleet.queues, *fleet.of_models(keys.any_lane, keys.suspects)]),
        Grant(["zrange"], fleet.of_models(keys.any_dated, keys.deferred)),
        Grant(["zrange"], fleet.of_tiers(keys.counters)),
        Grant(["srandmember"], fleet.of_tiers(keys.entrants)),
    ]
