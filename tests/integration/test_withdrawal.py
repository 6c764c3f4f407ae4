"""Jobs that are cancelled while queued leave their queue at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from celery import Celery

from autoscaler.upkeep.cancellations import fix_results
from autoscaler.upkeep.revocations import LOOK_S, Revocations
from autoscaler.upkeep.sweep import Sweep
from deploy import acl
from deploy.machine.server import Server
from processes import wait_for
from producer import AsyncClient, Client, Settings, Status
from producer.contract import keys
from producer.contract.errors import JobCancelled
from producer.contract.message.job import TASK
from producer.contract.server.connection import connect, database
from scheduler.lease.queue import Queue
from scheduler.periodic import Periodic
from scheduler.queue_lengths import observe

LIMIT = 6
WHOLE = {"*": {"queue_share": 1}}


@pytest.fixture
def settings(redis: redis_py.Redis, server: Server) -> Settings:
    limits = {"max_queued": LIMIT}
    return Settings(
        redis={"url": server.url}, models={name: {"engine": "echo", "limits": limits} for name in "mn"}, tenants=WHOLE
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def submit_all(client: Client) -> list[str]:
    """As many as a queue takes, in each kind of lane."""
    kinds: list[dict[str, Any]] = [{}, {"tenant": "named"}, {"tenant": "named", "deadline": 1}]
    return client.submit_many(client.job("m", "x", tier="batch", **kind) for kind in kinds for _ in range(LIMIT // 3))


def queued(redis: redis_py.Redis, settings: Settings) -> int:
    return observe(redis, settings)["m"].queued


@pytest.mark.parametrize("many", [False, True])
def test_they_count_neither_as_queued_nor_against_the_limit(
    redis: redis_py.Redis, settings: Settings, client: Client, many: bool
) -> None:
    with redis.pubsub() as heard:
        heard.subscribe(keys.pidbox(database(redis)))
        assert heard.get_message(timeout=5)["type"] == "subscribe"
        for _ in range(2):  # there is room again
            ids = submit_all(client)
            assert queued(redis, settings) == LIMIT
            if many:
                client.cancel_many(ids)
            else:
                assert all(client.cancel(job_id) for job_id in ids)
            assert queued(redis, settings) == 0
            assert {client.status(job_id) for job_id in ids} == {Status.CANCELLED}
        assert Queue(redis, settings, "m").claim(10, "w.1") == []
        assert not redis.zcard(keys.withdrawals())
        heard.ping()
        assert heard.get_message(timeout=5)["type"] == "pong", "workers were told of a job that never ran"


@pytest.mark.parametrize("stays", [{"tenant": "named"}, {"deadline": 1}])
def test_workers_go_on_seeing_what_stays_in_a_lane(
    redis: redis_py.Redis, client: Client, stays: dict[str, Any]
) -> None:
    """Beside a plain list with jobs, of which a worker is told by the list itself."""
    first, *_ = client.submit_many(client.job("m", "x", tier="batch", **kind) for kind in (stays, stays, {}))
    assert client.cancel(first)
    assert redis.exists(keys.wake("m", "batch"))


def test_workers_are_told_of_those_that_run(redis: redis_py.Redis, settings: Settings, client: Client) -> None:
    ids = submit_all(client)
    assert len(Queue(redis, settings, "m").claim(1, "w.1")) == 1
    with redis.pubsub() as heard:
        heard.subscribe(keys.pidbox(database(redis)))
        assert heard.get_message(timeout=5)["type"] == "subscribe"
        client.cancel_many(ids)
        assert heard.get_message(timeout=5)["type"] == "message"
        heard.ping()
        assert heard.get_message(timeout=5)["type"] == "pong", "they are told once"
    assert queued(redis, settings) == 0


def test_the_asyncio_client_does_the_same(redis: redis_py.Redis, settings: Settings, client: Client) -> None:
    async def cancel(ids: list[str]) -> None:
        async with AsyncClient(settings) as waiting:
            assert await waiting.cancel(ids[0], model="m", tier="batch", tenant="default")
            await waiting.cancel_many(ids[1:])
            assert not await waiting.cancel(ids[0])

    asyncio.run(cancel(submit_all(client)))
    assert queued(redis, settings) == 0


def test_what_a_producer_with_limited_rights_cancels_is_withdrawn_by_the_autoscaler(
    redis: redis_py.Redis, settings: Settings, client: Client, server: Server
) -> None:
    redis.execute_command("ACL", "SETUSER", "limited", "on", ">pw", *acl.rules("producer", settings))
    url = server.url.replace("://", "://limited:pw@")
    try:
        ids = submit_all(client)
        with Client(settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})) as limited:
            limited.cancel_many(ids)
            assert {limited.status(job_id) for job_id in ids} == {Status.CANCELLED}
        assert queued(redis, settings) == LIMIT
        assert not redis.exists(*map(keys.result, ids)), "it may write no results"
        Sweep(redis)(settings)
        assert queued(redis, settings) == 0
        assert not redis.zcard(keys.withdrawals())
    finally:
        redis.execute_command("ACL", "DELUSER", "limited")


def test_the_autoscaler_fixes_the_results_of_what_producers_cancel(
    redis: redis_py.Redis, settings: Settings, client: Client
) -> None:
    ended, *ids = submit_all(client)
    (job,) = Queue(redis, settings, "m").claim(1, "w.1")
    Queue(redis, settings, "m").finish([(job.lease, ended, b'{"status": "SUCCESS", "result": {"output": 1}}')])
    redis.lpush(keys.cancellations(), ended, *ids, b"\xff", "", "x" * 10_000, "a\nb")
    with client.redis.pubsub() as told:
        told.subscribe(keys.result(ids[0]))
        assert told.get_message(timeout=5)["type"] == "subscribe"
        fix_results(redis, settings)
        assert told.get_message(timeout=5)["type"] == "message"
    assert client.status(ended) is Status.SUCCEEDED
    for job_id in ids:
        with pytest.raises(JobCancelled):
            client.result(job_id, timeout=5)
    assert len(redis.keys(keys.result("*"))) == 1 + len(ids)
    assert not redis.exists(keys.cancellations())


def test_the_autoscaler_finds_a_job_wherever_it_is_in_a_long_queue(redis: redis_py.Redis, settings: Settings) -> None:
    long = Settings(redis={"url": settings.redis_url}, models={"m": {"engine": "echo"}})
    with Client(long) as client:
        ids = client.submit_many(client.job("m", "x" * 500, tier="batch") for _ in range(3000))
        for job_id in ids[::500]:
            client.cancel(job_id)
    assert queued(redis, long) > 3000 - 6, "found at once: the test shows nothing"
    sweep = Sweep(redis)
    while redis.zcard(keys.withdrawals()):
        sweep(long)
    assert queued(redis, long) == 3000 - 6


def test_a_stock_revoke_holds_with_no_worker_up(
    redis: redis_py.Redis, settings: Settings, server: Server, client: Client
) -> None:
    revocations = Revocations(connect(settings), settings)
    hearing = Periodic("hearing", LOOK_S, revocations.remember)
    hearing.start()
    try:
        wait_for(lambda: redis.pubsub_numsub(keys.pidbox(database(redis)))[0][1], "the autoscaler to listen")
        redis.publish(keys.pidbox(database(redis)), b"rubbish")
        with Celery(broker=server.url, backend=server.url, set_as_current=False) as app:
            gone = app.send_task(TASK, kwargs={"input": "x"}, queue="m.batch", ignore_result=True)
            stays = app.send_task(TASK, kwargs={"input": "x"}, queue="m.batch", ignore_result=True)
            gone.revoke()
            wait_for(lambda: redis.zscore(keys.cancelled(), gone.id), "it to be remembered")
            redis.client_kill_filter(_type="pubsub")
            wait_for(lambda: redis.pubsub_numsub(keys.pidbox(database(redis)))[0][1], "the autoscaler to listen anew")
            app.control.revoke("another")
            wait_for(lambda: redis.zscore(keys.cancelled(), "another"), "that to be remembered, too")
        Sweep(redis)(settings)
        assert client.status(gone.id) is Status.CANCELLED
    finally:
        hearing.stop()
        revocations.close()
    assert queued(redis, settings) == 1
    (job,) = Queue(redis, settings, "m").claim(10, "w.1")
    assert stays.id.encode() in job.message
