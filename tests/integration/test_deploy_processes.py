"""Processes that are kept running, and processes that are stopped by their records alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.launchers import records
from deploy.machine import detached
from deploy.machine.local import ALL
from deploy.machine.supervise import STABLE_S, Child
from deploy.machine.teardown import ORDER, graces, stop_all
from producer.contract.errors import StokerError
from producer.contract.fleet.fleet_schema import Scaling
from producer.contract.fleet.settings import Settings

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
PATIENT = "import time; print(flush=True); time.sleep(600)"
GRACE = dict.fromkeys(ORDER, 10.0)

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a Python program, and returns when it runs."""
    started = []

    def start(program: str = PATIENT) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def record(settings: Settings, process: subprocess.Popen[bytes], role: str, name: str = "") -> records.Record:
    made = records.of_process(process.pid, role, name or role)
    records.write(settings.state_dir / "run", made)
    return made


def test_everything_with_a_record_is_stopped_in_order_and_forgotten(settings: Settings, spawn: Spawn) -> None:
    processes = {role: spawn() for role in reversed(ORDER)}
    for role, process in processes.items():
        record(settings, process, role)
    settings.url_file.write_text("redis://127.0.0.1:1/0")
    said: list[str] = []
    assert stop_all(settings, said.append, GRACE) == len(ORDER)
    assert [line.split()[1] for line in said] == list(ORDER)
    assert all(process.wait(5) == -signal.SIGTERM for process in processes.values())
    assert list(settings.state_dir.iterdir()) == []


def test_workers_are_told_together_and_not_one_after_the_other(settings: Settings, spawn: Spawn) -> None:
    stubborn = [spawn(STUBBORN) for _ in range(3)]
    for number, process in enumerate(stubborn):
        record(settings, process, "worker", f"worker-{number}")
    begun = time.monotonic()
    stop_all(settings, lambda _: None, {**GRACE, "worker": 1.0})
    together = time.monotonic() - begun
    assert all(process.wait(5) == -signal.SIGKILL for process in stubborn)
    assert together < 3 * 1.0  # one after the other would take at least three graces


DAEMON = """
import os, signal, sys
if os.fork():
    print(os.wait()[0], flush=True)
    signal.pause()
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.close(1)
signal.pause()
"""
"""Starts a process that nothing ties to it: a session of its own, no parent, and deaf to SIGTERM."""


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_worker_has_started_ends_with_the_fleet_wherever_it_has_gone(
    settings: Settings, spawn: Spawn, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    run_dir = settings.state_dir / "run"
    monkeypatch.setenv(records.MARK, records.mark(run_dir, "worker-1"))
    worker = spawn(DAEMON)
    monkeypatch.delenv(records.MARK)
    record(settings, worker, "worker", "worker-1")
    (daemon,) = [each for each in records.left_behind(run_dir, "worker-1") if each.pid != worker.pid]
    other = spawn()
    if killed:
        kill(worker.pid)
    said: list[str] = []
    stop_all(settings, said.append, {**GRACE, "worker": 0.5})
    assert records.left_behind(run_dir) == []
    assert any(f"(pid {daemon.pid}) behind: killed" in line for line in said)
    assert other.poll() is None


def test_what_does_not_end_in_time_is_killed_and_said(settings: Settings, spawn: Spawn) -> None:
    process = spawn(STUBBORN)
    record(settings, process, "flower")
    said: list[str] = []
    stop_all(settings, said.append, {**GRACE, "flower": 0.2})
    assert process.wait(5) == -signal.SIGKILL
    assert f"flower (pid {process.pid}) did not end within 0.2 s: killed" in said


def test_a_process_that_has_our_pid_but_is_not_ours_is_left_alone(settings: Settings, spawn: Spawn) -> None:
    other = spawn()
    ours = record(settings, other, "worker")
    records.write(settings.state_dir / "run", replace(ours, started_ticks=ours.started_ticks - 1))
    assert stop_all(settings, lambda _: None, GRACE) == 0
    assert other.poll() is None
    assert not (settings.state_dir / "run").exists()


def test_a_record_that_was_half_written_is_cleared_away(settings: Settings) -> None:
    run_dir = settings.state_dir / "run"
    run_dir.mkdir()
    (run_dir / ".server.x1y2").write_text('{"role": "ser')
    assert stop_all(settings, lambda _: None, GRACE) == 0
    assert not run_dir.exists()


def test_the_supervisor_gets_the_time_that_all_the_others_need() -> None:
    grace = graces(Settings(scaling=Scaling(drain_s=300)))
    assert grace["worker"] > 300
    assert grace["supervisor"] > sum(grace[role] for role in ORDER if role != "supervisor")


@pytest.mark.parametrize("text", ["[[", 'state_dir = "kept"\n[models.m]\nengine = "gone"\n'])
def test_a_fleet_whose_file_was_broken_meanwhile_can_be_stopped(tmp_path: Path, spawn: Spawn, text: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    process = spawn()
    record(Settings(state_dir=tmp_path / ("kept" if "kept" in text else ".stoker")), process, "autoscaler")
    down = [sys.executable, "-P", "-m", "deploy.cli", "--fleet", str(file), "down"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    done = subprocess.run(down, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fleet.toml" in done.stdout  # what is wrong with it is told all the same
    assert "everything is stopped" in done.stdout
    assert process.wait(5) == -signal.SIGTERM


def test_a_broken_file_where_nothing_ever_ran_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("[[")
    down = [sys.executable, "-P", "-m", "deploy.cli", "down"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    done = subprocess.run(down, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not TOML" in done.stderr


def child(settings: Settings, spawn: Spawn, said: list[str], name: str = "part") -> tuple[Child, list[int]]:
    pids: list[int] = []

    def recorded() -> subprocess.Popen[bytes]:
        process = spawn()
        pids.append(process.pid)
        return process

    return Child(name, recorded, settings.state_dir / "run", Path("part.log"), said.append), pids


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while records.alive(records.of_process(pid, "", "")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_dies_is_started_again_later_each_time(settings: Settings, spawn: Spawn) -> None:
    said: list[str] = []
    part, pids = child(settings, spawn, said)
    part.start(now=0.0)
    part.tend(now=1.0)
    assert len(pids) == 1

    kill(pids[0])
    part.tend(now=2.0)  # notices
    part.tend(now=2.4)  # still pauses
    assert len(pids) == 1
    part.tend(now=2.5)
    assert len(pids) == 2

    kill(pids[1])
    part.tend(now=3.0)
    part.tend(now=3.9)
    assert len(pids) == 2
    part.tend(now=4.0)
    assert len(pids) == 3
    assert [record.pid for record in records.read_all(settings.state_dir / "run")] == [pids[-1]]
    assert said == [
        "part ended unexpectedly (signal 9); restart in 0.5 s. Its log: part.log",
        "part ended unexpectedly (signal 9); restart in 1 s. Its log: part.log",
    ]


def test_a_child_that_ran_well_for_long_begins_anew(settings: Settings, spawn: Spawn) -> None:
    said: list[str] = []
    part, pids = child(settings, spawn, said)
    part.start(now=0.0)
    for now in (1.0, 1.0 + STABLE_S + 1):
        kill(pids[-1])
        part.tend(now)
        part.tend(now + 0.5)
    assert [line.partition("restart in ")[2][:5] for line in said] == ["0.5 s", "0.5 s"]


def test_what_an_earlier_supervisor_left_running_is_taken_over_and_tended(settings: Settings, spawn: Spawn) -> None:
    left = spawn()
    record(settings, left, "part")
    said: list[str] = []
    part, pids = child(settings, spawn, said)
    part.start(now=0.0)
    assert pids == []
    kill(left.pid)
    part.tend(now=1.0)
    part.tend(now=1.5)
    assert len(pids) == 1
    assert said[1].startswith("part ended unexpectedly; restart")


def test_a_start_in_the_background_tells_what_it_waits_for_until_the_supervisor_is_silent(
    settings: Settings, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached, "TOLD_EVERY_S", 0.1)
    monkeypatch.setattr(detached, "READY_TIMEOUT_S", 1.0)
    log = settings.state_dir / "logs" / "up.log"
    log.parent.mkdir()
    log.write_text("of an earlier run\n")
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        if len(said) < 30:  # for longer than the supervisor may be silent
            log.write_text(log.read_text() + "the server loads its data\n")

    with pytest.raises(StokerError, match="the fleet is not ready after 1 s: the supervisor has not started"):
        detached.wait_until_up(settings, say, ALL, spawn(), log.stat().st_size)
    assert len(said) >= 30
    assert set(said) == {"waiting: the supervisor has not started"}
