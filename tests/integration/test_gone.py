"""Jobs that are gone, because their queue was emptied, are noticed when they are submitted again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from celery import Celery

from deploy import acl
from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import keys
from producer.contract.message import celery_message
from scheduler.lease.queue import Queue
from scheduler.queue_lengths import observe

LIMIT = 100
WHOLE = {"*": {"queue_share": 1}}


@pytest.fixture
def settings(redis: redis_py.Redis, server: Server) -> Settings:
    limits = {"max_queued": LIMIT, "max_input_bytes": 300_000}
    return Settings(redis={"url": server.url}, models={"m": {"engine": "echo", "limits": limits}}, tenants=WHOLE)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def messages(redis: redis_py.Redis) -> int:
    """Messages in all places where jobs wait."""
    lists = [name for name in redis.scan_iter("*m*") if redis.type(name) == b"list" and b":wake:" not in name]
    return sum(redis.llen(name) for name in lists) + redis.zcard(keys.dated("m", "batch", "named"))


PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (keys.queue("m", "batch"), {}),
    "lane": (keys.lane("m", "batch", "named"), {"tenant": "named"}),
    "dated": (keys.dated("m", "batch", "named"), {"tenant": "named", "deadline": 1}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("others", [0, 3])
def test_a_job_whose_queue_was_emptied_is_queued_anew(
    redis: redis_py.Redis, client: Client, place: str, others: int
) -> None:
    name, kind = PLACES[place]
    ids = [client.submit("m", str(n), tier="batch", idempotency_key=str(n), **kind) for n in range(3)]
    redis.delete(name)
    client.submit_many(client.job("m", "x", tier="batch", **kind) for _ in range(others))
    assert messages(redis) == others
    for _ in range(2):  # and after that it is known
        again = client.submit_many(client.job("m", "0", tier="batch", idempotency_key="0", **kind) for _ in range(2))
        assert again == [ids[0]] * 2
        assert messages(redis) == others + 1


def test_a_purge_by_stock_celery_is_noticed(redis: redis_py.Redis, server: Server, client: Client) -> None:
    job = client.submit("m", "x", tier="batch", idempotency_key="k")
    with Celery(broker=server.url, set_as_current=False) as app, app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("m.batch") == 1
    assert client.submit("m", "x", tier="batch", idempotency_key="k") == job
    (claimed,) = Queue(redis, client.settings, "m").claim(10, "w.1")
    assert job.encode() in claimed.message
    Queue(redis, client.settings, "m").finish([(claimed.lease, job, celery_message.cancelled_meta(job))])
    client.submit("m", "x", tier="batch", idempotency_key="k")
    assert messages(redis) == 0, "a job with a result is not gone"


def test_a_job_that_waits_in_another_tier_is_known(redis: redis_py.Redis, client: Client) -> None:
    client.submit("m", "x", tier="batch", idempotency_key="k")
    client.submit("m", "x", tier="interactive", idempotency_key="k")
    assert messages(redis) == 1


def test_behind_a_queue_too_long_to_be_looked_through_a_job_counts_as_known(
    redis: redis_py.Redis, client: Client
) -> None:
    client.submit("m", "x", tier="batch", idempotency_key="k")
    redis.delete("m.batch")
    client.submit_many(client.job("m", "x" * 150_000, tier="batch") for _ in range(40))
    client.submit("m", "x", tier="batch", idempotency_key="k")
    assert redis.llen("m.batch") == 40
    redis.ltrim("m.batch", 0, 1)
    client.submit("m", "x", tier="batch", idempotency_key="k")
    assert redis.llen("m.batch") == 3


def test_who_may_only_count_notices_it_when_nothing_else_is_there(
    redis: redis_py.Redis, settings: Settings, server: Server
) -> None:
    redis.execute_command("ACL", "SETUSER", "limited", "on", ">pw", *acl.rules("producer", settings))
    redis.execute_command("ACL", "LOG", "RESET")
    url = server.url.replace("://", "://limited:pw@")
    try:
        with Client(settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})) as limited:
            limited.submit("m", "x", tier="batch", idempotency_key="k")
            redis.delete("m.batch")
            other = limited.submit("m", "x", tier="batch")
            limited.submit("m", "x", tier="batch", idempotency_key="k")
            assert redis.llen("m.batch") == 1
            limited.cancel(other)
            redis.delete("m.batch")
            limited.submit("m", "x", tier="batch", idempotency_key="k")
            assert redis.llen("m.batch") == 1
        assert redis.acl_log() == []
    finally:
        redis.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("place", ["lane", "dated"])
def test_lanes_that_were_deleted_count_no_longer_as_demand(
    redis: redis_py.Redis, settings: Settings, client: Client, place: str
) -> None:
    name, kind = PLACES[place]
    client.submit_many(client.job("m", "x", tier="batch", **kind) for _ in range(3))
    assert redis.delete(name) == 1
    assert Queue(redis, settings, "m").claim(10, "w.1") == []
    # Nor do they count as arrived: nobody can tell whether a producer has miscounted.
    seen = observe(redis, settings)["m"]
    assert (seen.queued, seen.arrived) == (0, 0)
    client.submit("m", "x", tier="batch", **kind)
    assert len(Queue(redis, settings, "m").claim(10, "w.2")) == 1
    assert observe(redis, settings)["m"].queued == 0


def test_a_full_queue_does_not_refuse_what_is_in_it(redis: redis_py.Redis, client: Client) -> None:
    jobs = [client.job("m", str(n), tier="batch", idempotency_key=str(n)) for n in range(LIMIT)]
    assert client.submit_many(jobs) == client.submit_many(jobs)
    assert redis.llen("m.batch") == LIMIT
