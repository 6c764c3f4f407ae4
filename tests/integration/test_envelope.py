"""Our envelope is the message that a stock Celery producer would have pushed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis as redis_py
from celery import Celery

from deploy.server import Server
from producer import Client, InvalidJob, Job, QueueFull, Settings, Status, UnknownModel, UnknownTier, keys
from producer.envelope import encode
from producer.job import TASK

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
    theirs = json.loads(redis.lindex("m.batch", 0))
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


def test_what_no_worker_could_serve_is_refused_and_nothing_is_queued(client: Client, redis: redis_py.Redis) -> None:
    wrong: list[tuple[type[Exception], str, dict[str, object]]] = [
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
            client.submit(**fields)  # type: ignore[arg-type]
    assert redis.keys() == []


def test_a_full_queue_refuses_all_of_a_submission_and_says_when_to_come_back(
    client: Client, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", str(n)) for n in range(3))
    with pytest.raises(QueueFull, match="holds 3 jobs of 5 allowed") as refused:
        client.submit_many(client.job("m", str(n)) for n in range(3))
    assert refused.value.retry_after_s > 0
    assert redis.llen("m.interactive") == 3


def test_an_idempotency_key_is_queued_once(client: Client, redis: redis_py.Redis) -> None:
    first = client.submit("m", "x", idempotency_key="k")
    assert client.submit("m", "x", idempotency_key="k") == first
    assert client.submit("m", "x", idempotency_key="k", tenant="other") != first
    assert redis.llen("m.interactive") == 2


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
        getattr(keys, name)("x")
        if name not in ("cancelled", "workers", "leader", "decisions", "devices")
        else getattr(keys, name)()
        for name in dir(keys)
        if not name.startswith("_") and callable(getattr(keys, name)) and name not in ("queue", "result")
    ]
    assert len(ours) > 10
    assert all(key.startswith("stoker:") for key in ours)
