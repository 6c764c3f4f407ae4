"""The roles that serve jobs: they claim and end them, and write their results."""

from __future__ import annotations

from producer.contract import keys

from . import scripts
from .grants import CANCELLED, RESULT, Grant, GrantScope, remote_control, running

CLAIMING = (
    scripts.CLAIM,
    scripts.FINISH,
    scripts.RELEASE,
    scripts.RENEW,
    scripts.REAP,
    scripts.BURY,
    scripts.DEFER,
    scripts.STREAM,
)
UPKEEP = (scripts.REAP, scripts.DEFER, scripts.EXCUSE, scripts.RECOUNT, scripts.LAST_QUEUED)
DATA = ("@hash", "@list", "@set", "@sortedset", "@stream", "@string", "exists")


def worker(fleet: GrantScope) -> list[Grant]:
    """A worker: all queues and state of its models, and of no other model."""
    return [
        running(CLAIMING, [*fleet.queues, *fleet.state, *CANCELLED, keys.stream("*"), RESULT]),
        running([scripts.REVOKE], CANCELLED),
        Grant(["xadd", "pexpire"], [keys.stream("*")]),
        Grant(["llen", "lrange", "lindex", "ltrim", "lpush", "rpush", "blmove", "exists"], fleet.queues),
        Grant([*DATA, "del"], fleet.state),
        Grant(["zcard", "zmscore", "zscore"], [keys.cancelled()]),
        Grant(["zadd", "zremrangebyscore"], CANCELLED),
        Grant(["get", "set", "del", "publish"], [RESULT], [RESULT]),
        *_heart(),
        # Read by its health check (deploy.health).
        Grant(["get", "mget"], [keys.worker("*")]),
        Grant(["zrange", "zrangebyscore"], [keys.workers()]),
        *remote_control(fleet, fleet.queues),
        Grant(["publish"], channels=[fleet.events]),
    ]


def autoscaler(fleet: GrantScope) -> list[Grant]:
    """The autoscaler: observes the fleet, reaps lost workers' jobs, ends cancelled ones, and writes its journal."""
    return [
        running(UPKEEP, [*fleet.queues, *fleet.state]),
        running([scripts.WITHDRAW, scripts.REVOKE], [*fleet.queues, *fleet.state, RESULT, *CANCELLED]),
        running([scripts.CANCEL], [RESULT, *CANCELLED, keys.cancellations()]),
        running(scripts.LEADER, [keys.leader()]),
        Grant(["llen", "lindex", "lpush", "rpush", "lrange", "lset", "lrem", "exists"], fleet.queues),
        Grant(DATA, fleet.state),
        Grant(["del"], fleet.of_tiers(keys.wake)),
        Grant(["zadd", "zmscore", "zrange", "zrem", "zremrangebyscore"], CANCELLED),
        Grant(["brpop", "rpop"], [keys.cancellations()]),
        Grant(["subscribe"], channels=[fleet.pidbox]),
        Grant(["set", "get", "getrange", "publish"], [RESULT], [RESULT]),
        Grant(["get", "set", "del", "pexpire", "exists"], [keys.leader()]),
        Grant(["set", "get"], [keys.devices(), keys.sizes()]),
        Grant(["hgetall", "hset", "hdel"], [keys.quarantine()]),
        Grant(["spop"], [keys.retry_requests()]),
        Grant(["xadd"], [keys.decisions()]),
        Grant(["info"]),
        *_heart(),
        Grant(["get", "mget"], [keys.worker("*")]),
        Grant(["zrangebyscore", "zrange"], [keys.workers()]),
    ]


def _heart() -> list[Grant]:
    return [Grant(["set", "del"], [keys.worker("*")]), Grant(["zadd", "zrem"], [keys.workers()])]
