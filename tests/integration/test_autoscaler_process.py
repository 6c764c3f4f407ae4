"""``python -m autoscaler`` as it is run, with real workers of the echo engine."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from autoscaler.launchers import records
from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import heartbeat, keys
from producer.contract.errors import JobFailed
from producer.contract.heartbeat import WorkerState
from redis_replies import entries

FLEET = """
[redis]
url = "{url}"
lease_s = 2
max_losses = 2

[scaling]
interval_s = 0.1
idle_s = {idle_s}

[models.echo]
engine = "echo"

[[devices]]
name = "cpu:0"
"""


def until(condition: Callable[[], object], what: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}; the autoscaler's log:\n{log.read_text()}"
        time.sleep(0.02)


class Machine:
    """A fleet file, and the autoscalers that run on it one after the other."""

    def __init__(self, folder: Path, url: str, idle_s: float = 600) -> None:
        self.file = folder / "fleet.toml"
        self.file.write_text(FLEET.format(url=url, idle_s=idle_s))
        self.settings = Settings.load(self.file)
        self.run_dir = self.settings.state_dir / "run"
        self.log = folder / "autoscaler.log"
        self.log.touch()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "STOKER_FLEET": str(self.file)}
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "autoscaler"], env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def until(self, condition: Callable[[], object], what: str) -> None:
        until(condition, what, self.log)

    def workers(self) -> list[records.Record]:
        return records.read_all(self.run_dir)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for record in records.read_all(self.run_dir):
            records.send(record, signal.SIGKILL)


@pytest.fixture
def machine(tmp_path: Path, server: Server, redis: redis_py.Redis) -> Iterator[Callable[[float], Machine]]:
    with contextlib.ExitStack() as stack:

        def make(idle_s: float) -> Machine:
            made = Machine(tmp_path, server.url, idle_s)
            stack.callback(made.close)
            return made

        yield make


def test_from_zero_to_an_answer_and_back_to_zero(machine: Callable[[float], Machine], redis: redis_py.Redis) -> None:
    here = machine(1.0)
    process = here.start()
    with contextlib.closing(Client(here.settings)) as client:
        job = client.submit("echo", "hello")
        answer = client.result(job, timeout=60)
    assert answer.output == "hello"
    here.until(lambda: not here.workers(), "no worker")
    here.until(lambda: not heartbeat.read_all(redis), "no heartbeat")
    actions = [entry[b"action"] for _, entry in entries(redis, keys.decisions())]
    assert actions == [b"start", b"drain"]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not redis.exists(keys.leader())


def test_killed_and_started_again_it_finds_its_worker(
    machine: Callable[[float], Machine], redis: redis_py.Redis
) -> None:
    here = machine(600)
    first = here.start()
    with contextlib.closing(Client(here.settings)) as client:
        client.result(client.submit("echo", "one"), timeout=60)
        (worker,) = here.workers()
        first.kill()
        first.wait()
        redis.delete(keys.leader())  # instead of waiting until the lease of the dead one runs out
        second = here.start()
        here.until(lambda: redis.exists(keys.leader()), "the successor")
        client.result(client.submit("echo", "two"), timeout=60)
        here.until(lambda: redis.exists(keys.devices()), "its view")
    second.terminate()
    assert second.wait(30) == 0
    assert here.workers() == [worker]

    def states() -> list[tuple[str, WorkerState]]:
        return [(beat.name, beat.state) for beat in heartbeat.read_all(redis)]

    here.until(lambda: states() == [(worker.name, WorkerState.READY)], "the one worker, still serving")
    actions = [entry[b"action"] for _, entry in entries(redis, keys.decisions())]
    assert actions == [b"start"]


def test_a_worker_whose_record_is_lost_gets_it_back(machine: Callable[[float], Machine], redis: redis_py.Redis) -> None:
    here = machine(600)
    here.start()
    with contextlib.closing(Client(here.settings)) as client:
        client.result(client.submit("echo", "one"), timeout=60)
    (worker,) = here.workers()
    records.remove(here.run_dir, worker.name)
    here.until(here.workers, "its record")
    (again,) = here.workers()
    assert (again.name, again.pid, again.model, again.device) == (worker.name, worker.pid, "echo", "cpu:0")


@pytest.mark.slow
def test_a_model_added_to_the_fleet_file_is_served_and_swept_and_one_that_left_is_drained(
    machine: Callable[[float], Machine], redis: redis_py.Redis
) -> None:
    here = machine(600)
    here.start()
    with contextlib.closing(Client(here.settings)) as client:
        client.result(client.submit("echo", "one"), timeout=60)
    here.file.write_text(here.file.read_text().replace("[models.echo]", "[models.parrot]"))
    with contextlib.closing(Client(Settings.load(here.file))) as client:
        assert client.result(client.submit("parrot", "hello"), timeout=60).output == "hello"
        (worker,) = here.workers()
        assert worker.model == "parrot"
        records.send(worker, signal.SIGKILL)
        killer = client.submit("parrot", "x", parameters={"crash": True})
        with pytest.raises(JobFailed, match="lost 2 workers"):
            client.result(killer, timeout=90)
    assert "the fleet file changed and is in effect; new: parrot; gone: echo" in here.log.read_text()
    here.file.write_text("models = 3")
    here.until(lambda: "the changed fleet file is refused" in here.log.read_text(), "the refusal")


def test_a_killed_worker_is_replaced_and_its_jobs_are_not_lost(
    machine: Callable[[float], Machine], redis: redis_py.Redis
) -> None:
    here = machine(600)
    here.start()
    with contextlib.closing(Client(here.settings)) as client:
        client.result(client.submit("echo", "one"), timeout=60)
        (worker,) = here.workers()
        records.send(worker, signal.SIGKILL)
        answer = client.result(client.submit("echo", "two"), timeout=60)
    assert answer.output == "two"
    (other,) = here.workers()
    assert other.name != worker.name
    actions = [entry[b"action"] for _, entry in entries(redis, keys.decisions())]
    assert b"lost" in actions


@pytest.mark.slow
def test_a_job_that_kills_its_workers_ends_as_a_dead_letter_though_nobody_starts_workers(
    machine: Callable[[float], Machine], redis: redis_py.Redis
) -> None:
    here = machine(600)
    here.start()
    with contextlib.closing(Client(here.settings)) as client:
        killer = client.submit("echo", "x", parameters={"crash": True})
        with pytest.raises(JobFailed, match="lost 2 workers while it ran"):
            client.result(killer, timeout=90)
    assert redis.xlen(keys.dead("echo")) == 1
    assert not redis.exists(keys.suspects("echo"))
    reasons = [entry[b"reason"] for _, entry in entries(redis, keys.decisions()) if entry[b"action"] == b"start"]
    assert b"1 queued: 1 suspect;" in reasons[-1]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("models = 3", "models = 3"),
        ('[models.m]\nengine = "echo"', "no device to run on"),
    ],
)
def test_a_fleet_that_cannot_work_ends_at_once_with_the_cause(
    tmp_path: Path, server: Server, tables: str, message: str
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(tables)
    environment = {
        **os.environ,
        "STOKER_FLEET": str(file),
        "REDIS_URL": server.url,
        "CUDA_VISIBLE_DEVICES": "",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "autoscaler"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
