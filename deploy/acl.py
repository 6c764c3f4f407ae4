"""Least privilege: the ``ACL SETUSER`` rules of each role (Redis 7.0, Valkey 7.2, or later).

Each grant is a selector: some commands on some keys. A role therefore never has the product of all its commands and
all its keys; a producer can push to a queue and delete a result, but cannot delete a queue. A script runs with the
permissions of its caller, so ``EVALSHA`` grants no access to further keys or commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from producer.contract import keys
from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings

from .grants import DEADLINES, EVENTS, PIDBOX, REPLIES, TABLES, Grant, GrantScope

CONNECTION = (
    "ping",
    "hello",
    "select",
    "client|setinfo",
    "client|setname",
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "time",
    "unsubscribe",
    "punsubscribe",
    "script|load",
    "script|exists",
)
"""Commands of every client that name no key. ``SCRIPT FLUSH``, ``SCRIPT KILL``, ``FUNCTION`` and ``EVAL`` are denied.
"""

RESULT = keys.result("*")
OPEN_BATCHES = (keys.open_batches(), keys.open_batches_of("*"), keys.open_tenants())
CANCELLED = (keys.cancelled(), keys.withdrawals())


def producer(fleet: GrantScope) -> list[Grant]:
    """:class:`producer.Client`: submits, collects and cancels jobs. It cannot read queued jobs."""
    lanes = [keys.lanes(model) for model in fleet.models]
    return [
        Grant(["evalsha"], [*fleet.queues, *fleet.waiting, *lanes, keys.submission("*"), RESULT, *CANCELLED]),
        Grant(["lpush", "llen"], fleet.queues),
        *_lanes(fleet),
        Grant(["hset"], fleet.waiting),
        *_counts(fleet),
        Grant(["xread", "xrange"], [keys.stream("*"), keys.bell("*")]),
        Grant(["xadd", "pexpire"], [keys.bell("*")]),
        Grant(["set", "get"], [keys.submission("*")]),
        Grant(["get", "mget", "set", "del", "subscribe", "publish"], [RESULT], [RESULT]),
        Grant(["zadd", "zremrangebyscore"], CANCELLED),
        Grant(["get", "mget"], [keys.worker("*")]),
        Grant(["zrange", "zrangebyscore"], [keys.workers()]),
        Grant(["exists"], [keys.leader()]),
        Grant(["get"], fleet.forecasts),
        # Publish only: a subscriber would receive the revocations of every tenant's jobs.
        Grant(["publish"], channels=[fleet.pidbox]),
    ]


def gateway(fleet: GrantScope) -> list[Grant]:
    """The gateway: a producer that also looks up API keys, and records the tenant of each stored job."""
    return [
        *producer(fleet),
        *_withdrawals(fleet),
        Grant(["evalsha"], [keys.api_keys(), keys.rate("*"), keys.webhooks()]),
        Grant(["hget", "hlen"], [keys.api_keys()]),
        Grant(["get", "set"], [keys.rate("*"), keys.idempotency("*")]),
        Grant(["unlink", "pexpire"], [RESULT, keys.stream("*"), keys.submission("*")]),
        Grant(["get", "mget", "set", "del"], [keys.job_record("*")]),
        Grant(["mget"], [keys.job_record("*"), RESULT]),
        Grant(["zadd", "zrem", "zrangebyscore"], [keys.webhooks()]),
        Grant(["hget"], [name(model) for model in fleet.models for name in (keys.served, keys.waiting)]),
        *_registry(),
        Grant(["evalsha", "hset", "hget", "hsetnx"], [keys.batch("*")]),
        Grant(["zadd"], [keys.batches("*"), *OPEN_BATCHES]),
        Grant(["zrevrangebylex"], [keys.batches("*")]),
    ]


def batches(fleet: GrantScope) -> list[Grant]:
    """The batch process: a producer that also runs batches, and deletes results once they are in an output file."""
    batch = [keys.batch("*"), keys.batch_lease("*"), keys.batch_parts("*"), *OPEN_BATCHES]
    return [
        *producer(fleet),
        *_withdrawals(fleet),
        *_registry(),
        Grant(["evalsha"], batch),
        Grant(["hset", "hget", "hincrby"], [keys.batch("*")]),
        Grant(["hsetnx", "hgetall", "del"], [keys.batch_parts("*")]),
        Grant(["set", "get", "pexpire", "del"], [keys.batch_lease("*")]),
        Grant(["zrangebylex", "zrange", "zrem", "exists"], OPEN_BATCHES),
        Grant(["mget"], [keys.batch_lease("*")]),
        Grant(["hgetall"], [keys.api_keys()]),
        Grant(["del"], [keys.submission("*"), RESULT]),
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
        Grant(["hlen"], [keys.inflight(model) for model in fleet.models]),
        Grant(["llen"], [keys.suspects(model) for model in fleet.models]),
        Grant(["zcard"], [keys.deferred(model) for model in fleet.models]),
    ]


def _lanes(fleet: GrantScope) -> list[Grant]:
    """What ``submit.lua`` writes to the lanes of tenants, and what admission reads of them.

    Admission (``producer/estimates/on_arrival.py``) counts jobs, and reads only the next job of a lane.
    """
    models = fleet.models
    return [
        Grant(["lpush", "llen", "lindex"], [keys.any_lane(model) for model in models]),
        Grant(["zadd", "zcard", "zcount"], [keys.any_dated(model) for model in models]),
        Grant(["zadd"], [keys.due(model, "*") for model in models]),
        Grant(
            ["zadd", "zscore", "zrange", "zrem", "zcard", "zremrangebyscore"],
            [name(model, "*") for name in (keys.counters, keys.departed) for model in models],
        ),
        Grant(["hget", "hmget", "hincrby"], [keys.lanes(model) for model in models]),
        Grant(["exists", "lpush"], [keys.wake(model, "*") for model in models]),
    ]


def _withdrawals(fleet: GrantScope) -> list[Grant]:
    """What ``withdraw.lua`` does to take jobs out of their queues, and ``gone.lua`` to look through them.

    A producer has no such right, since it would let it read and remove all queued jobs: the autoscaler withdraws what
    it cancels."""
    models = fleet.models
    lanes = [keys.any_lane(model) for model in models]
    of_jobs = [name(model) for name in (keys.losses, keys.retries, keys.history) for model in models]
    return [
        Grant(["evalsha"], [*fleet.queues, *(keys.served(model) for model in models), *CANCELLED]),
        Grant(["zmscore", "zrem"], CANCELLED),
        Grant(["hscan"], [keys.inflight(model) for model in models]),
        Grant(["llen", "lrange", "lset", "lrem"], [*fleet.queues, *lanes, *(keys.suspects(model) for model in models)]),
        Grant(["zrange", "zrem", "zcard"], [keys.any_dated(model) for model in models]),
        Grant(["zrange", "zrem"], [keys.deferred(model) for model in models]),
        Grant(["zadd", "zrem"], [keys.due(model, "*") for model in models]),
        Grant(["hset"], [keys.lanes(model) for model in models]),
        Grant(["del"], [keys.wake(model, "*") for model in models]),
        Grant(["hincrby"], [keys.taken(model) for model in models]),
        Grant(["hdel"], [*fleet.waiting, *(keys.served(model) for model in models), *of_jobs]),
    ]


def stock(fleet: GrantScope) -> list[Grant]:
    """A Celery application without Stoker's client: ``send_task``, ``AsyncResult``, ``revoke``."""
    # Celery also asks for the lengths of the lists of its priorities, beside each queue.
    priorities = [f"{queue}??[369]" for queue in fleet.queues]
    return [
        Grant(["lpush", "llen"], [*fleet.queues, *priorities]),
        Grant(["sadd", "smembers"], _tables([*fleet.queues, PIDBOX])),
        Grant(["get", "mget", "del", "subscribe"], [RESULT], [RESULT]),
        Grant(["publish"], channels=[fleet.pidbox, fleet.events]),
    ]


def worker(fleet: GrantScope) -> list[Grant]:
    """A worker: all queues and state of its models, and of no other model."""
    return [
        Grant(["evalsha"], [*fleet.queues, *fleet.state, *CANCELLED, keys.stream("*"), RESULT]),
        Grant(["xadd", "pexpire"], [keys.stream("*")]),
        Grant(["llen", "lrange", "lindex", "ltrim", "lpush", "rpush", "blmove", "exists"], fleet.queues),
        Grant(["@hash", "@list", "@sortedset", "@stream", "@string", "exists", "del"], fleet.state),
        Grant(["zcard", "zmscore", "zscore"], [keys.cancelled()]),
        Grant(["zadd", "zremrangebyscore"], CANCELLED),
        Grant(["get", "set", "del", "publish"], [RESULT], [RESULT]),
        *_heart(),
        *_remote_control(fleet, [*fleet.queues]),
        Grant(["publish"], channels=[fleet.events]),
    ]


def autoscaler(fleet: GrantScope) -> list[Grant]:
    """The autoscaler: observes the fleet, reaps the jobs of lost workers, and writes its journal."""
    return [
        Grant(["evalsha"], [*fleet.queues, *fleet.state, keys.leader(), RESULT, *CANCELLED]),
        Grant(["llen", "lindex", "lpush", "rpush", "lrange", "lset", "lrem", "exists"], fleet.queues),
        Grant(["@hash", "@list", "@sortedset", "@stream", "@string", "exists"], fleet.state),
        Grant(["del"], [keys.wake(model, "*") for model in fleet.models]),
        Grant(["zadd", "zmscore", "zrange", "zrem", "zremrangebyscore"], CANCELLED),
        Grant(["subscribe"], channels=[fleet.pidbox]),
        Grant(["set", "get", "getrange", "publish"], [RESULT], [RESULT]),
        Grant(["get", "set", "del", "pexpire"], [keys.leader()]),
        Grant(["set", "get"], [keys.devices(), keys.sizes()]),
        Grant(["hgetall", "hset", "hdel"], [keys.quarantine()]),
        Grant(["spop"], [keys.retry_requests()]),
        Grant(["xadd"], [keys.decisions()]),
        Grant(["info"]),
        *_heart(),
        Grant(["get", "mget"], [keys.worker("*")]),
        Grant(["zrangebyscore", "zrange"], [keys.workers()]),
    ]


def monitor(fleet: GrantScope) -> list[Grant]:
    """Flower and ``stoker status``: read-only, except that Flower queries workers through Celery's remote control."""
    priorities = [f"{queue}??[369]" for queue in fleet.queues]
    return [
        Grant(["llen", "lindex"], [*fleet.queues, *priorities]),
        Grant(["llen"], [f"*{queue}" for queue in fleet.queues]),  # with a prefix of Celery's (strays.py)
        Grant(["hlen", "xlen", "llen", "zcard"], fleet.state),
        Grant(
            ["hgetall", "hmget"],
            [name(model) for model in fleet.models for name in (keys.served, keys.taken, keys.lanes)],
        ),
        Grant(["get", "mget"], [keys.worker("*"), keys.leader(), keys.devices(), *fleet.forecasts]),
        # Read by a dry run of the autoscaler.
        Grant(["hgetall"], [keys.quarantine(), *(keys.throughput(model) for model in fleet.models)]),
        Grant(["exists"], [keys.leader()]),
        Grant(["zrange", "zrangebyscore"], [keys.workers()]),
        Grant(["xrevrange"], [keys.decisions()]),
        Grant(["zcard"], [keys.open_batches()]),
        Grant(["scan", "info"]),
        Grant(["smembers"], [f"{TABLES[0]}*"]),
        *_remote_control(fleet, []),
        Grant(["psubscribe", "subscribe", "publish"], channels=[fleet.pidbox, fleet.events]),
        Grant(["brpop", "llen", "del"], [f"*.{REPLIES}*", f"{EVENTS}.*"]),
        # Stock Kombu, while it waits for a reply, also checks for unacknowledged messages of stock workers.
        Grant(["set", "get", "del", "evalsha"], ["unacked_mutex"]),
        Grant(["zrange"], ["unacked_index"]),
    ]


def operator(fleet: GrantScope) -> list[Grant]:
    """An operator: a monitor that also handles dead letters, purges queues, manages API keys, cancels batches, releases
    devices and retries models."""
    dead = [keys.dead(model) for model in fleet.models]
    return [
        *monitor(fleet),
        *_lanes(fleet),
        *_withdrawals(fleet),
        Grant(["evalsha"], [*fleet.state, *fleet.queues, RESULT, *CANCELLED]),
        Grant(["zadd", "zremrangebyscore"], CANCELLED),
        Grant(["xrange", "xrevrange", "xlen", "xdel", "del"], dead),
        Grant(["hdel", "zrem"], fleet.state),
        Grant(["lpush"], fleet.queues),
        Grant(["get", "set", "del", "publish"], [RESULT], [RESULT]),
        Grant(["hset", "hgetall"], [keys.api_keys()]),
        Grant(["zrangebylex"], [keys.open_batches()]),
        Grant(["evalsha", "hgetall", "hget", "hsetnx"], [keys.batch("*")]),
        Grant(["hset"], [keys.quarantine()]),
        Grant(["sadd"], [keys.retry_requests()]),
    ]


def _heart() -> list[Grant]:
    return [Grant(["set", "del"], [keys.worker("*")]), Grant(["zadd", "zrem"], [keys.workers()])]


def _remote_control(fleet: GrantScope, queues: Iterable[str]) -> list[Grant]:
    """A mailbox for Celery's remote control, replies to the mailboxes of others, and Kombu's bookkeeping."""
    own = _tables([PIDBOX, REPLIES, EVENTS])
    return [
        Grant(["sadd", "smembers"], _tables(queues)),
        Grant(["sadd", "srem", "smembers", "exists", "del"], own),
        Grant(["evalsha"], [*own, DEADLINES]),
        Grant(["zadd", "zrangebyscore", "zrem"], [DEADLINES]),
        Grant(["llen", "del", "exists", "pexpire"], [f"*.{PIDBOX}*", f"{EVENTS}.*"]),
        Grant(["lpush"], [f"*.{REPLIES}"]),
        Grant(["psubscribe", "subscribe"], channels=[fleet.pidbox]),
    ]


def _tables(exchanges: Iterable[str]) -> list[str]:
    return [f"{table}{exchange}" for exchange in exchanges for table in TABLES]


ROLES: dict[str, Callable[[GrantScope], list[Grant]]] = {
    role.__name__: role for role in (producer, gateway, batches, stock, worker, autoscaler, monitor, operator)
}


def rules(role: str, settings: Settings, models: Sequence[str] = ()) -> list[str]:
    """The rules of a role, to follow ``ACL SETUSER name``; they do not set a password.

    Args:
        models: the models that the role covers; all of the fleet file when empty.

    Raises:
        ConfigError: an unknown role; names the allowed ones.
        UnknownModel: a model that is not in the fleet file; names those that are.
    """
    if role not in ROLES:
        raise ConfigError(f"no role {role!r}; allowed: {', '.join(ROLES)}")
    chosen = list(models) or list(settings.models)
    queues = [keys.queue(model, tier) for model in chosen for tier in settings.model(model).tiers]
    grants = ROLES[role](GrantScope(chosen, queues, _db(settings)))
    return ["-@all", *(f"+{command}" for command in CONNECTION), *(grant.rule for grant in grants)]


def _db(settings: Settings) -> int:
    """The number of the Redis database, which is part of the names of Celery's channels."""
    try:
        return int(urlsplit(settings.redis_url).path.removeprefix("/") or 0)
    except ConfigError:  # no Redis is configured or running
        return 0
