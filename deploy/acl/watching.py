"""The roles that look at the fleet and operate it."""

from __future__ import annotations

from redis.lock import Lock

from producer.contract import keys

from . import scripts
from .grants import CANCELLED, EVENTS, REPLIES, RESULT, TABLES, Grant, GrantScope, remote_control, running


def monitor(fleet: GrantScope) -> list[Grant]:
    """Flower and ``stoker status``: read-only, except that Flower queries workers through Celery's remote control."""
    return [
        Grant(["llen", "lindex"], [*fleet.queues, *fleet.priorities]),
        Grant(["llen"], [f"*{queue}" for queue in fleet.queues]),  # with a prefix of Celery's (strays.py)
        Grant(["hlen", "xlen", "llen", "zcard"], fleet.state),
        Grant(["hgetall", "hmget"], fleet.of_models(keys.served, keys.taken, keys.lanes)),
        Grant(["get", "mget"], [keys.worker("*"), keys.leader(), keys.devices(), *fleet.forecasts]),
        # Read by a dry run of the autoscaler.
        Grant(["hgetall"], [keys.quarantine(), *fleet.of_models(keys.throughput)]),
        Grant(["exists"], [keys.leader()]),
        Grant(["zrange", "zrangebyscore"], [keys.workers()]),
        Grant(["xrevrange"], [keys.decisions()]),
        Grant(["zcard"], [keys.open_batches()]),
        Grant(["scan", "info"]),
        Grant(["smembers"], [f"{TABLES[0]}*"]),
        *remote_control(fleet, []),
        Grant(["psubscribe", "subscribe", "publish"], channels=[fleet.pidbox, fleet.events]),
        Grant(["brpop", "llen", "del"], [f"*.{REPLIES}*", f"{EVENTS}.*"]),
        # Stock Kombu, while it waits for a reply, also checks for unacknowledged messages of stock workers.
        running([Lock.LUA_RELEASE_SCRIPT], ["unacked_mutex"]),
        Grant(["set", "get", "del"], ["unacked_mutex"]),
        Grant(["zrange"], ["unacked_index"]),
    ]


def operator(fleet: GrantScope) -> list[Grant]:
    """An operator: a monitor that also handles dead letters, purges queues, manages API keys, cancels batches, releases
    devices and retries models."""
    return [
        *monitor(fleet),
        *_lanes(fleet),
        *_withdrawals(fleet),
        running([scripts.REQUEUE, scripts.WITHDRAW, scripts.REVOKE], [*fleet.state, *fleet.queues, RESULT, *CANCELLED]),
        running([scripts.CANCEL], [RESULT, *CANCELLED, keys.cancellations()]),
        running([scripts.CANCEL_BATCH], [keys.batch("*")]),
        Grant(["zadd", "zremrangebyscore"], CANCELLED),
        Grant(["xrange", "xrevrange", "xlen", "xdel"], fleet.of_models(keys.dead)),
        Grant(["del"], fleet.of_models(keys.dead, keys.letter_sizes, keys.letter_bytes)),  # all by one command
        Grant(["hincrby"], fleet.of_models(keys.letter_bytes)),
        Grant(["hdel", "zrem"], fleet.state),
        Grant(["lpush"], fleet.queues),
        Grant(["get", "set", "del", "publish"], [RESULT], [RESULT]),
        Grant(["hset", "hgetall"], [keys.api_keys()]),
        Grant(["zrangebylex"], [keys.open_batches()]),
        Grant(["hgetall", "hget", "hsetnx"], [keys.batch("*")]),
        Grant(["hset"], [keys.quarantine()]),
        Grant(["sadd"], [keys.retry_requests()]),
    ]


def _lanes(fleet: GrantScope) -> list[Grant]:
    """What ``requeue.lua`` writes to put a job into a lane."""
    return [
        Grant(["lpush", "llen"], fleet.of_models(keys.any_lane)),
        Grant(["zadd", "zcard"], fleet.of_models(keys.any_dated)),
        Grant(["zadd"], fleet.of_tiers(keys.due)),
        Grant(
            ["zadd", "zscore", "zrange", "zrem", "zcard", "zremrangebyscore"],
            fleet.of_tiers(keys.counters, keys.departed),
        ),
        Grant(["hget", "hset", "hincrby"], fleet.of_models(keys.lanes, keys.accounts)),
        Grant(["exists", "lpush"], fleet.of_tiers(keys.wake)),
    ]


def _withdrawals(fleet: GrantScope) -> list[Grant]:
    """What ``withdraw.lua`` does to take jobs out of their queues."""
    of_jobs = fleet.of_models(keys.losses, keys.retries, keys.history)
    return [
        Grant(["zmscore", "zrem"], CANCELLED),
        Grant(["hscan"], fleet.of_models(keys.inflight)),
        Grant(["llen", "lrange", "lset", "lrem"], [*fleet.queues, *fleet.of_models(keys.any_lane, keys.suspects)]),
        Grant(["zrange", "zrem", "zcard"], fleet.of_models(keys.any_dated)),
        Grant(["zrange", "zrem"], fleet.of_models(keys.deferred)),
        Grant(["zadd", "zrem"], fleet.of_tiers(keys.due)),
        Grant(["srandmember", "exists"], fleet.of_tiers(keys.entrants)),
        Grant(["del"], fleet.of_tiers(keys.wake)),
        Grant(["hincrby"], fleet.of_models(keys.taken)),
        Grant(["hdel"], [*fleet.of_models(keys.waiting, keys.served), *fleet.of_tiers(keys.reached), *of_jobs]),
    ]
