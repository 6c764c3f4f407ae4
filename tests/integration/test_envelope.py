"""Our envelope is the message that a stock Celery producer would have pushed."""

import asyncio
import base64
import inspect
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from celery import Celery

from deploy.machine.server import Server
from producer import AsyncClient, Client, InvalidJob, Job, QueueFull, Settings, Status, UnknownModel, UnknownTier
from producer.contract import heartbeat, keys
from producer.contract.fleet.fleet_schema import Limits, Model, Redis
from producer.contract.fleet.tenants import Tenant
from producer.contract.message.celery_message import encode, revocation
from producer.contract.message.job import TASK
from producer.contract.server.connection import database
from producer.submission import plan
from redis_replies import items, scores, text

OURS_ALONE = {"submitted_at"}
NEW_EVERY_TIME = {"id", "root_id", "origin", "kwargsrepr", "correlation_id", "reply_to", "delivery_tag"}


@pytest.fixture
def client(redis: redis_py.Redis, server: Server, tmp_path: Path) -> Client:
    file = tmp_path / "fleet.toml"
    file.write_text(f'''
        redis.url = "{server.url}"
        [models.m]
        engine = "echo"
        limits = {{ max_queued = 5, max_input_bytes = 4000, max_inputs = 3 }}
        [tenants."*"]
        queue_share = 1
    ''')
    return Client(Settings.load(file))


def test_the_message_is_the_one_that_celery_would_send(redis: redis_py.Redis, server: Server) -> None:
    deadline = datetime(2100, 1, 1, tzinfo=UTC)
    job = Job(model="m", tier="batch", input=["x", "y"], parameters={"a": 1}, deadline=deadline)
    ours = json.loads(encode(job, "id"))
    with Celery(broker=server.url, set_as_current=False) as app:
        app.send_task(
            TASK,
            kwargs=job.model_dump(mode="json", exclude_defaults=True),
            queue="m.batch",
            expires=deadline,
            ignore_result=False,
        )
    theirs = json.loads(text(redis.lindex("m.batch", 0)))
    assert ours["body"] == theirs["body"]
    for part in ("headers", "properties"):
        mine, stock = ours[part], theirs[part]
        stock.pop("expiration", None)  # an AMQP notion; Kombu's Redis transport does not read it
        assert set(mine) - OURS_ALONE == set(stock)
        for field in set(stock) - NEW_EVERY_TIME:
            assert mine[field] == stock[field], field
    assert {key: ours[key] for key in ("content-type", "content-encoding")} == {
        key: theirs[key] for key in ("content-type", "content-encoding")
    }


def test_a_revocation_is_the_message_that_celery_would_broadcast(redis: redis_py.Redis, server: Server) -> None:
    with redis.pubsub() as heard, Celery(broker=server.url, set_as_current=False) as app:
        heard.subscribe(keys.pidbox(database(redis)))
        app.control.revoke(["one", "two"], terminate=True)
        heard.get_message(timeout=10)
        theirs = json.loads(heard.get_message(timeout=10)["data"])
    ours = json.loads(revocation(["one", "two"]))
    assert json.loads(base64.b64decode(ours.pop("body"))) == json.loads(base64.b64decode(theirs.pop("body")))
    for message in (ours, theirs):
        del message["properties"]["delivery_tag"]
        del message["headers"]  # a logical clock, and when replies expire
    assert ours == theirs


def test_what_no_worker_could_serve_is_refused_and_nothing_is_queued(client: Client, redis: redis_py.Redis) -> None:
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UnknownModel, "no model 'n' in the fleet; allowed: m", {"model": "n", "input": "x"}),
        (UnknownTier, "no tier 'gold'; allowed: interactive", {"model": "m", "input": "x", "tier": "gold"}),
        (InvalidJob, "input is empty", {"model": "m", "input": []}),
        (InvalidJob, "input 1 is empty", {"model": "m", "input": ["x", ""]}),
        (InvalidJob, "holds 4 items.*max_inputs allows 3", {"model": "m", "input": ["x"] * 4}),
        (InvalidJob, "max_input_bytes allows 4000", {"model": "m", "input": "x" * 4000}),
        (InvalidJob, "input", {"model": "m", "input": 7}),
        (InvalidJob, "tenant", {"model": "m", "input": "x", "tenant": ""}),
        (InvalidJob, "parameters", {"model": "m", "input": "x", "parameters": {"a": object()}}),
    ]
    for kind, message, fields in wrong:
        with pytest.raises(kind, match=message):
            client.submit(**fields)
    assert redis.keys() == []


def test_a_full_queue_refuses_all_of_a_submission_and_says_when_to_come_back(
    client: Client, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", str(n)) for n in range(3))
    with pytest.raises(QueueFull, match="holds 3 jobs of 5 allowed") as refused:
        client.submit_many(client.job("m", str(n)) for n in range(3))
    assert refused.value.retry_after_s > 0
    assert redis.llen("m.interactive") == 3


def many(client: Client) -> list[Job]:
    """Three for each of two queues, and of the second there is room for one only."""
    client.submit_many(client.job("m", "x", tier="batch") for _ in range(4))
    return [client.job("m", str(n), tier=tier, idempotency_key=f"{tier}{n}") for n in range(3) for tier in TIERS]


TIERS = ("interactive", "batch")


def test_what_was_queued_before_another_queue_was_full_is_told(client: Client, redis: redis_py.Redis) -> None:
    jobs = many(client)
    with pytest.raises(QueueFull, match="3 jobs were queued and 3 were not") as full:
        client.submit_many(jobs)
    assert full.value.queued == [job.id for job in jobs if job.tier == "interactive"]
    assert full.value.refused == [job.id for job in jobs if job.tier == "batch"]
    assert (redis.llen("m.interactive"), redis.llen("m.batch")) == (3, 4)


def test_the_async_client_tells_what_was_queued_as_well(client: Client) -> None:
    jobs = many(client)

    async def submit() -> None:
        async with AsyncClient(client.settings) as other:
            await other.submit_many(jobs)

    with pytest.raises(QueueFull) as full:
        asyncio.run(submit())
    assert full.value.queued == [job.id for job in jobs if job.tier == "interactive"]
    assert full.value.refused == [job.id for job in jobs if job.tier == "batch"]


def test_a_large_submission_blocks_redis_for_a_thousand_messages_at_most(server: Server, redis: redis_py.Redis) -> None:
    settings = Settings(
        redis=Redis(url=server.url),
        models={"m": Model(engine="echo", limits=Limits(max_queued=2100))},
        tenants={"*": Tenant(queue_share=1)},
    )
    with Client(settings) as client:
        jobs = [client.job("m", str(n)) for n in range(2500)]
        _, pushes = plan(jobs, settings)
        assert [len(push.ids) for push in pushes] == [1000, 1000, 500]
        with pytest.raises(QueueFull, match="2000 jobs were queued and 500 were not") as full:
            client.submit_many(jobs)
    assert (len(full.value.queued), len(full.value.refused)) == (2000, 500)
    waiting = [json.loads(message)["headers"]["id"] for message in redis.lrange("m.interactive", 0, -1)]
    assert waiting[::-1] == full.value.queued  # in the order in which they were given


def test_both_clients_agree_about_where_a_job_is(client: Client, redis: redis_py.Redis) -> None:
    job = client.submit("m", "x")
    now = time.time()
    beat = heartbeat.Heartbeat(
        name="w",
        model="m",
        device="cpu:0",
        host="h",
        pid=1,
        pid_created_at=1.0,
        state=heartbeat.WorkerState.READY,
        started_at=now,
        beat_at=now,
        running=(heartbeat.mark(job),),
    )

    async def status() -> Status:
        async with AsyncClient(client.settings) as other:
            return await other.status(job)

    heartbeat.write(redis, beat)
    assert client.status(job) is asyncio.run(status()) is Status.RUNNING
    # The clocks of workers are their own; and what one of another version says hides no other.
    heartbeat.write(redis, beat.model_copy(update={"beat_at": now - 3 * heartbeat.TTL_S}))
    redis.set(keys.worker("odd"), "{}")
    redis.zadd(keys.workers(), {"odd": now, "gone": now})
    assert client.status(job) is asyncio.run(status()) is Status.RUNNING
    redis.delete(keys.worker("w"))
    assert client.status(job) is asyncio.run(status()) is Status.QUEUED


def test_an_idempotency_key_is_queued_once(client: Client, redis: redis_py.Redis) -> None:
    first = client.submit("m", "x", idempotency_key="k")
    assert client.submit("m", "x", idempotency_key="k") == first
    assert client.submit("m", "x", idempotency_key="k", tenant="other") != first
    assert redis.llen("m.interactive") == redis.llen(keys.lane("m", "interactive", "other")) == 1


def test_many_jobs_of_a_tenant_keep_their_order_and_are_queued_once(client: Client, redis: redis_py.Redis) -> None:
    def jobs(first: int, last: int) -> list[Job]:
        return [client.job("m", str(n), tenant="acme", idempotency_key=f"k{n}") for n in range(first, last)]

    ids = client.submit_many(jobs(0, 3))
    again = client.submit_many(jobs(2, 4))
    assert again[0] == ids[2]
    dated = client.submit_many([client.job("m", "soon", tenant="acme", deadline=0.5)])
    oldest_first = items(redis, keys.lane("m", "interactive", "acme"))[::-1]
    assert [json.loads(entry.partition(b"|")[2])["headers"]["id"] for entry in oldest_first] == [*ids, again[1]]
    [(entry, _)] = scores(redis, keys.dated("m", "interactive", "acme"))
    assert json.loads(entry.partition(b"!")[2])["headers"]["id"] == dated[0]
    assert redis.hget(keys.lanes("m"), "jobs:m.interactive") == b"5"


def test_a_job_that_only_expires_is_due_no_earlier_than_others(client: Client, redis: redis_py.Redis) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    job = client.job("m", "x", tenant="acme").model_copy(update={"expires": soon})
    client.submit_many([job])
    assert not redis.exists(keys.dated("m", "interactive", "acme"))
    [entry] = items(redis, keys.lane("m", "interactive", "acme"))
    assert json.loads(entry.partition(b"|")[2])["headers"]["expires"] == soon.isoformat()


def test_many_jobs_go_to_their_own_queues(client: Client, redis: redis_py.Redis) -> None:
    client.submit_many([client.job("m", "x"), client.job("m", "y", tier="batch"), client.job("m", "z")])
    assert (redis.llen("m.interactive"), redis.llen("m.batch")) == (2, 1)


def test_a_cancelled_job_has_its_result_at_once(client: Client) -> None:
    job = client.submit("m", "x")
    assert client.status(job) is Status.QUEUED
    assert client.cancel(job)
    assert client.status(job) is Status.CANCELLED
    assert not client.cancel(job)


def test_keys_are_private_to_stoker() -> None:
    """Nothing of ours, queues and Celery's results apart, may collide with what stock Celery or Kombu keeps."""
    ours = [
        getattr(keys, name)(*("x" for _ in inspect.signature(getattr(keys, name)).parameters))
        for name in dir(keys)
        if not name.startswith("_") and callable(getattr(keys, name)) and name not in ("queue", "result", "pidbox")
    ]
    assert len(ours) > 10
    assert all(key.startswith("stoker:") for key in ours)
