"""``stoker purge`` empties queues, and whoever waits for a job that was there is told at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from celery import Celery
from rich.console import Console
from typer.testing import CliRunner, Result

from deploy import acl
from deploy.cli import app
from deploy.machine.server import Server
from producer import Client, Settings, Status
from producer.contract import keys
from producer.contract.errors import JobCancelled
from producer.contract.message.job import TASK
from scheduler.lease.queue import Queue
from scheduler.queue_lengths import observe

KINDS: list[dict[str, Any]] = [{}, {"tenant": "named"}, {"tenant": "named", "deadline": 1}, {"deadline": 1}]


@pytest.fixture
def settings(redis: redis_py.Redis, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    file = tmp_path / "fleet.toml"
    models = "".join(f'[models.{name}]\nengine = "echo"\n' for name in ("parrot", "owl"))
    file.write_text(f'[redis]\nurl = "{server.url}"\n{models}')
    monkeypatch.setenv("STOKER_FLEET", str(file))
    monkeypatch.setattr("deploy.cli.purge.console", Console(width=200, highlight=False))
    return Settings.load(file)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def purge(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(app, ["purge", *arguments], input=said)


def submit(client: Client, model: str, tier: str, times: int = 2) -> list[str]:
    return client.submit_many(client.job(model, "x", tier=tier, **kind) for kind in KINDS for _ in range(times))


def test_whoever_waits_for_a_job_is_told_wherever_it_waited(
    redis: redis_py.Redis, settings: Settings, client: Client
) -> None:
    ids, others = submit(client, "parrot", "batch"), submit(client, "owl", "batch")
    queue = Queue(redis, settings, "parrot")
    deferred, suspect, running = (queue.claim(1, f"w.{n}")[0] for n in range(3))
    assert queue.defer(deferred.lease) == 1
    entry: Any = redis.hget(keys.inflight("parrot"), suspect.lease)
    redis.hset(keys.losses("parrot"), hashlib.sha1(entry, usedforsecurity=False).hexdigest(), queue.suspect_at)
    assert queue.release([suspect.lease]) == 1
    assert redis.llen(keys.suspects("parrot")) == redis.zcard(keys.deferred("parrot")) == 1
    done = purge("parrot", "--yes")
    assert (done.exit_code, done.stdout) == (0, f"parrot: cancelled {len(ids) - 1} queued jobs\n")
    (left,) = [job_id for job_id in ids if client.status(job_id) is not Status.CANCELLED]
    assert left.encode() in running.message
    with pytest.raises(JobCancelled):
        client.result(next(job_id for job_id in ids if job_id != left), timeout=0)
    seen = observe(redis, settings)
    assert (seen["parrot"].queued, seen["parrot"].deferred, seen["parrot"].inflight) == (0, 0, 1)
    assert not redis.exists(keys.losses("parrot"), keys.retries("parrot"), keys.wake("parrot", "batch"))
    assert seen["owl"].queued == len(others)
    with_running = purge("parrot", "--yes", "--running")
    assert with_running.stdout == "parrot: cancelled 0 queued jobs, and 1 running job\n"
    assert client.status(left) is Status.CANCELLED


def test_of_one_tier_only(redis: redis_py.Redis, settings: Settings, client: Client) -> None:
    submit(client, "parrot", "batch"), submit(client, "parrot", "interactive")
    queue = Queue(redis, settings, "parrot")
    for job in queue.claim(16, "w.1"):
        queue.defer(job.lease)
    assert redis.zcard(keys.deferred("parrot")) == 16
    assert purge("parrot", "--tier", "batch", "--yes").stdout == "parrot.batch: cancelled 8 queued jobs\n"
    left: Any = redis.zrange(keys.deferred("parrot"), 0, -1)
    assert len(left) == 8
    assert all(entry.startswith(b"parrot.interactive") for entry in left)


def test_it_asks_before_it_does_anything(redis: redis_py.Redis, client: Client) -> None:
    submit(client, "parrot", "batch", 1)
    asked = purge("parrot", said="n\n")
    assert asked.exit_code == 1
    assert "Cancel 4 queued jobs of parrot?" in asked.output
    assert observe(redis, client.settings)["parrot"].queued == 4
    assert purge("parrot", said="y\n").exit_code == 0
    assert observe(redis, client.settings)["parrot"].queued == 0


def test_a_long_queue_of_many_tenants_and_what_is_no_job_goes_in_short_steps(
    redis: redis_py.Redis, server: Server, client: Client
) -> None:
    client.submit_many(client.job("parrot", "x" * 200, tier="batch") for _ in range(2000))
    client.submit_many(client.job("parrot", "x", tier="batch", tenant=f"t{n}") for n in range(250))
    redis.lpush("parrot.batch", b"nonsense", b'{"headers": {"id": 5}}')
    with Celery(broker=server.url, backend=server.url, set_as_current=False) as stock:
        waits = stock.send_task(TASK, kwargs={"input": "x"}, queue="parrot.batch")
        redis.config_resetstat()
        assert purge("parrot", "--yes").stdout == "parrot: cancelled 2,253 queued jobs\n"
        assert waits.state == "REVOKED"
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] > 250 + 2000 // 100, "some hundred jobs at most each"
    assert observe(redis, client.settings)["parrot"].queued == 0
    assert not redis.exists(keys.counters("parrot", "batch"))


def test_an_operator_may(
    redis: redis_py.Redis, settings: Settings, client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(client, "parrot", "batch")
    Queue(redis, settings, "parrot").claim(1, "w.1")
    redis.execute_command("ACL", "SETUSER", "operating", "on", ">pw", *acl.rules("operator", settings))
    redis.execute_command("ACL", "LOG", "RESET")
    monkeypatch.setenv("STOKER_REDIS__URL", server.url.replace("://", "://operating:pw@"))
    try:
        done = purge("parrot", "--running", said="y\n")
        assert done.stdout.endswith("parrot: cancelled 7 queued jobs, and 1 running job\n"), done.output
        assert redis.acl_log() == []
    finally:
        redis.execute_command("ACL", "DELUSER", "operating")
