"""What ``stoker status`` sees and shows, and what it never shows."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
import redis as redis_py
from kombu.transport import redis as kombu_redis
from rich.console import Console

from autoscaler.actions.decision import Start
from autoscaler.devices.device import Device, DeviceState
from autoscaler.journal import Journal
from autoscaler.launchers import records
from autoscaler.leader import Leader
from deploy import acl, health, strays
from deploy.cli.duration import duration
from deploy.cli.status import json_of, screen_of
from deploy.machine import gateway
from deploy.machine.server import Server
from deploy.status import FleetStatus, read_status
from producer import Client
from producer.contract import heartbeat, keys
from producer.contract.fleet.fleet_schema import Model, Redis
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.message.job import TASK

SECRET = "open-sesame"  # noqa: S105  a made-up one, which must show up nowhere


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    return Settings(
        redis=Redis(url=server.url),
        models={"parrot": Model(engine="echo"), "quiet": Model(engine="echo", tiers=("batch",))},
        state_dir=tmp_path,
    )


@pytest.fixture
def stock(server: Server) -> Iterator[celery.Celery]:
    """An application that imports nothing of ours."""
    with celery.Celery(broker=server.url, set_as_current=False) as app:
        yield app


def beat(**fields: object) -> Heartbeat:
    now = time.time()
    known = {"name": "parrot-1", "model": "parrot", "device": "cpu:0", "host": socket.gethostname(), "pid": 7}
    times = {"pid_created_at": now - 60, "started_at": now - 60, "beat_at": now}
    return Heartbeat.model_validate({"state": WorkerState.READY, **known, **times, **fields})


def shown(snapshot: FleetStatus) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(screen_of(snapshot))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_empty_fleet_says_what_there_is_not(redis: redis_py.Redis, settings: Settings) -> None:
    snapshot = read_status(redis, settings)
    assert (snapshot.leader, snapshot.workers, snapshot.devices, snapshot.decisions) == (None, [], (), [])
    assert [tier.tier for tier in snapshot.queues[0].tiers] == ["interactive", "standard", "batch"]
    screen = shown(snapshot)
    for words in ("none leads", "unknown: no autoscaler reports them", "none yet", "does not run here"):
        assert words in screen


def test_a_busy_fleet_shows_queues_workers_devices_and_reasons(redis: redis_py.Redis, settings: Settings) -> None:
    with Client(settings) as client:
        client.submit_many(client.job("parrot", f"word {number}", tier="batch") for number in range(5))
    heartbeat.write(redis, beat(running=("a", "b"), jobs_per_s=12.5, busy=0.5, batch_size=4))
    assert Leader(redis, ttl_s=10, name="house:1:abc").confirm()
    journal = Journal(redis)
    journal.decided(time.time(), Start("parrot", "cpu:0", "cpu", "5 queued [batch]"), "parrot-1")
    device = Device("cuda:0", "cuda", "H200", 141.0, used_gb=3.5, fault="hot", state=DeviceState.FAULTY)
    journal.show(time.time(), "test", [device, Device("cuda:1", "cuda", "H200", 141.0)], [], ttl_s=10)

    redis.zadd(keys.open_batches(), {"batch_1": 0, "batch_2": 0})
    records.write(settings.state_dir / "run", records.of_process(os.getpid(), "gateway", "gateway"))

    snapshot = read_status(redis, settings)
    assert [tier.length for tier in snapshot.queues[0].tiers] == [0, 0, 5]
    assert snapshot.gateway == f"{gateway.url(settings)}/v1"
    assert snapshot.leader == "house:1:abc"
    assert (snapshot.decisions[0].action, snapshot.decisions[0].reason) == ("start", "5 queued [batch]")
    screen = shown(snapshot)
    for words in ("parrot-1", "ready", "12.5", "50%", "H200", "3.5 of 141 GB", "faulty", "hot", "5 queued [batch]"):
        assert words in screen
    assert f"gateway {snapshot.gateway}" in screen
    assert "2 open batches" in screen
    assert (
        "2 devices: 1 idle, 0 reserved, 0 allocated, 1 faulty; 4 of 282 GB used, 141 GB left for further workers"
        in screen
    )


def test_a_worker_whose_engine_fails_is_shown_with_the_failures(redis: redis_py.Redis, settings: Settings) -> None:
    heartbeat.write(redis, beat(breaker="half-open", failing="9 of its last 9 requests failed"))
    screen = shown(read_status(redis, settings))
    assert "breaker half-open" in screen
    assert "parrot-1: 9 of its last 9 requests failed" in screen


def test_jobs_beside_the_queues_are_shown_and_told_to_programs(redis: redis_py.Redis, settings: Settings) -> None:
    redis.rpush(keys.suspects("parrot"), *(f"parrot.batch|{n}" for n in range(31)))
    redis.zadd(keys.deferred("parrot"), {f"parrot.batch|{n}": time.time() + 60 for n in range(42)})
    snapshot = read_status(redis, settings)
    row = next(line.split() for line in shown(snapshot).splitlines() if line.startswith("parrot"))
    assert row[-4:] == ["0", "42", "31", "0"]  # in flight, deferred, suspects, dead letters
    told = json.loads(json_of(snapshot, indent=None))["queues"][0]
    assert (told["suspects"], told["deferred"]) == (31, 42)


def test_no_secret_of_the_url_is_shown_anywhere(redis: redis_py.Redis, settings: Settings) -> None:
    url = f"redis://keeper:{SECRET}@127.0.0.1:6379/3?password={SECRET}"
    hidden = settings.model_copy(update={"redis": Redis(url=url)})
    snapshot = read_status(redis, hidden)
    assert snapshot.redis == "redis://***@127.0.0.1:6379/3"
    assert SECRET not in shown(snapshot)


def test_the_names_that_kombu_gives_its_keys_are_the_ones_we_look_for() -> None:
    channel = kombu_redis.Channel
    assert channel.keyprefix_queue == f"{strays.BINDINGS}%s"
    assert channel.sep == strays.SEPARATOR
    assert tuple(kombu_redis.PRIORITY_STEPS) == (0, *strays.PRIORITIES)


def test_jobs_on_a_queue_of_no_model_are_told(redis: redis_py.Redis, settings: Settings, stock: celery.Celery) -> None:
    for _ in range(2):
        stock.send_task(TASK, kwargs={"input": "hi"}, queue="parrot.fastest")
    stock.send_task(TASK, kwargs={"input": "hi"}, queue="parrot.batch")
    (stray,) = strays.find(redis, settings)
    assert (stray.queue, stray.waiting) == ("parrot.fastest", 2)
    assert "2 jobs on parrot.fastest cannot be served" in shown(read_status(redis, settings))


def test_the_queue_of_another_application_is_no_concern(
    redis: redis_py.Redis, settings: Settings, stock: celery.Celery
) -> None:
    stock.send_task("reports.send", queue="reports")
    assert strays.find(redis, settings) == []
    redis.lpush("reports", "no message")  # whatever it is
    assert strays.find(redis, settings) == []
    stock.send_task(TASK, kwargs={"input": "hi"}, queue="reports")
    assert [stray.queue for stray in strays.find(redis, settings)] == ["reports"]


def test_words_are_whole_in_a_narrow_terminal(redis: redis_py.Redis, settings: Settings) -> None:
    narrow = io.StringIO()
    Console(file=narrow, width=80).print(screen_of(read_status(redis, settings)))
    assert "interactive" in narrow.getvalue()
    assert "\u2026" not in narrow.getvalue()


def test_a_queue_of_no_model_with_nothing_on_it_is_no_concern(
    redis: redis_py.Redis, settings: Settings, stock: celery.Celery
) -> None:
    stock.send_task(TASK, queue="parrot.fastest")
    redis.delete("parrot.fastest")
    assert strays.find(redis, settings) == []


def test_jobs_beside_a_queue_because_of_a_priority_are_told(
    redis: redis_py.Redis, settings: Settings, stock: celery.Celery
) -> None:
    stock.send_task(TASK, kwargs={"input": "hi"}, queue="parrot.batch", priority=9)
    stock.send_task(TASK, kwargs={"input": "hi"}, queue="parrot.batch")
    (stray,) = strays.find(redis, settings)
    assert (stray.queue, stray.waiting) == ("parrot.batch", 1)
    assert "priority" in stray.cure


def test_jobs_that_were_sent_with_a_prefix_are_told(redis: redis_py.Redis, settings: Settings, server: Server) -> None:
    prefix = {"global_keyprefix": "shop:"}
    with celery.Celery(broker=server.url, broker_transport_options=prefix, set_as_current=False) as app:
        app.send_task(TASK, kwargs={"input": "hi"}, queue="parrot.batch")
        app.send_task("reports.send", queue="reports")
        redis.set("shop:parrot.interactive", "no list")
    (stray,) = strays.find(redis, settings)
    assert (stray.queue, stray.waiting) == ("shop:parrot.batch", 1)
    redis.execute_command("ACL", "SETUSER", "watching", "on", ">pw", *acl.rules("monitor", settings))
    try:
        with redis_py.Redis.from_url(server.url.replace("://", "://watching:pw@")) as watching:
            assert strays.find(watching, settings) == [stray]
    finally:
        redis.execute_command("ACL", "DELUSER", "watching")
    assert "1 job on shop:parrot.batch cannot be served: sent with global_keyprefix" in shown(
        read_status(redis, settings)
    )


def test_a_container_is_well_when_it_does_its_work(redis: redis_py.Redis) -> None:
    assert health.problem(redis, "autoscaler", "here") == "no autoscaler leads"
    assert Leader(redis, ttl_s=10).confirm()
    assert health.problem(redis, "autoscaler", "here") == ""
    heartbeat.write(redis, beat(host="there"))
    assert "no worker on here" in health.problem(redis, "worker", "here")
    heartbeat.write(redis, beat(host="here", name="other"))
    assert health.problem(redis, "worker", "here") == ""


def stoker(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "REDIS_"))}
    command = [sys.executable, "-P", "-m", "deploy.cli", *arguments]
    return subprocess.run(command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True)


@pytest.mark.slow
def test_every_mistake_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    no_file = stoker(tmp_path, "status")
    (tmp_path / "fleet.toml").write_text('[models.parrot]\nengine = "echo"\n')
    no_redis = stoker(tmp_path, "status")
    down = stoker(tmp_path, "status", REDIS_URL=f"redis://:{SECRET}@127.0.0.1:1/0")
    no_model = stoker(tmp_path, "worker", "--model", "parot", "--device", "cpu:0")
    (tmp_path / "fleet.toml").write_text('[models.parrot]\nengine = "ecko"\n')
    bad_file = stoker(tmp_path, "up")
    for done, words in (
        (no_file, "fleet.toml does not exist"),
        (no_redis, "no Redis: start one with 'stoker up'"),
        (down, "redis://***@127.0.0.1:1/0, as REDIS_URL says, does not answer"),
        (no_model, "no model 'parot' in the fleet; allowed: parrot"),
        (bad_file, "models.parrot.engine = 'ecko'"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("stoker: ")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stderr
    assert len(down.stderr.splitlines()) == 1


def test_json_is_for_programs_and_another_fleet_file_can_be_named(
    redis: redis_py.Redis, settings: Settings, tmp_path: Path
) -> None:
    redis.rpush(keys.queue("parrot", "batch"), "{}")
    file = tmp_path / "other.toml"
    file.write_text(f'[redis]\nurl = "{settings.redis_url}"\n[models.parrot]\nengine = "echo"\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = stoker(elsewhere, "--fleet", str(file), "status", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["queues"][0]["model"] == "parrot"
    assert told["queues"][0]["tiers"][2]["length"] == 1


def test_down_where_nothing_runs_is_well(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").touch()
    done = stoker(tmp_path, "down")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing was running" in done.stdout


def test_durations_are_to_look_at() -> None:
    assert [duration(s) for s in (0.04, 42, 600, 9000)] == ["0.0 s", "42 s", "10 min", "2.5 h"]
