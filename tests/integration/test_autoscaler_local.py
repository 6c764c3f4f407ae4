"""Local workers as real processes: small ones, that stand in for ``python -m workers``."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis as redis_py

from autoscaler.controller import Controller
from autoscaler.devices.device import DeclaredProbe
from autoscaler.launchers import local, records
from autoscaler.launchers.local import LocalLauncher, last_words
from autoscaler.launchers.protocol import LaunchError, Placement
from producer.contract import keys
from producer.contract.fleet.fleet_schema import DeclaredDevice, Model, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.process_identity import of_process
from redis_replies import entries

PLACE = Placement("m", "cpu:0", "cpu")
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
CRASH = "import sys; print('loading'); sys.exit('ModelNotFound: no package of that name')"
TELL = """
import json, os, sys
about = {"argv": sys.argv[1:], "env": dict(os.environ), "session": os.getsid(0), "pid": os.getpid()}
print(json.dumps(about))
"""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.01)


class Ground:
    """A state directory and the launchers on it, as of one autoscaler after the other."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.launchers: list[LocalLauncher] = []

    def launcher(self, program: str = SLEEP, **env: str) -> LocalLauncher:
        self.launchers.append(LocalLauncher(self.state_dir, env, (sys.executable, "-c", program)))
        return self.launchers[-1]

    def start(self, program: str = SLEEP) -> tuple[LocalLauncher, str]:
        """A launcher with one worker that has come up."""
        launcher = self.launcher(program)
        name = launcher.start(PLACE)
        until(lambda: "up" in self.log(name), "the worker")
        return launcher, name

    def log(self, name: str) -> str:
        return (self.state_dir / "logs" / f"{name}.log").read_text()

    def record(self, name: str) -> records.Record:
        return next(one for one in records.read(self.state_dir / "run") if one.name == name)

    def clear(self) -> None:
        for launcher in self.launchers:
            for child in launcher._children.values():
                child.kill()
                child.wait()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path / "state")
    yield ground
    ground.clear()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (PLACE, {"OMP_NUM_THREADS": "1"}),
        (
            Placement("m", "cuda:3", "cuda", uuid="GPU-7"),
            {"CUDA_VISIBLE_DEVICES": "GPU-7", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        ),
        (Placement("m", "cuda:3", "cuda"), {"CUDA_VISIBLE_DEVICES": "3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
    ],
)
def test_a_worker_is_told_who_and_where_it_is(ground: Ground, place: Placement, expected: dict[str, str]) -> None:
    launcher = ground.launcher(TELL, STOKER_FLEET="/somewhere/fleet.toml")
    name = launcher.start(place)
    until(lambda: not launcher.list(), "its end")
    about = json.loads(ground.log(name))
    known = ["--device-uuid", place.uuid] if place.uuid else []
    assert about["argv"] == [
        "--model", "m", "--device", place.device, *known, "--name", name, "--launched-by", launcher.id,
    ]  # fmt: skip
    assert expected.items() | {("STOKER_FLEET", "/somewhere/fleet.toml")} <= about["env"].items()
    assert about["session"] == about["pid"]


def test_a_restarted_launcher_finds_its_workers_and_can_drain_them(ground: Ground) -> None:
    first, name = ground.start()
    second = ground.launcher()
    assert second.id == first.id
    (found,) = second.list()
    assert (found.name, found.model, found.device, found.draining_since) == (name, "m", "cpu:0", None)
    second.drain(name, 60)
    until(lambda: not second.list(), "its end")
    (ended,) = second.ended()
    assert (ended.name, ended.asked) == (name, True)
    assert second.ended() == []
    assert records.read(ground.state_dir / "run") == []


def test_a_restarted_launcher_knows_since_when_a_worker_drains(ground: Ground) -> None:
    launcher, name = ground.start(STUBBORN)
    launcher.drain(name, 60)
    (found,) = ground.launcher().list()
    assert found.draining_since is not None
    record = ground.record(name)
    launcher.drain(name, 60)
    assert ground.record(name) == record


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_that_is_set_makes_no_worker_older_and_no_drain_longer(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    launcher, name = ground.start(STUBBORN)
    launcher.drain(name, 60)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    (found,) = ground.launcher().list()
    assert found.draining_since is not None
    assert 0 <= time.time() - found.draining_since < 600
    assert 0 <= time.time() - found.started_at < 600
    launcher.drain(name, 0)
    until(lambda: not launcher.list(), "its end")
    assert 0 <= launcher.ended()[0].lived_s < 600


def test_without_grace_even_a_stubborn_worker_ends(ground: Ground) -> None:
    launcher, name = ground.start(STUBBORN)
    launcher.drain(name, 60)
    launcher.drain(name, 0)
    until(lambda: not launcher.list(), "its end")
    assert "SIGKILL" in launcher.ended()[0].cause


def test_a_worker_that_the_kernel_killed_for_lack_of_memory_died_of_an_outside_cause(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("pgfault 9\noom_kill 3\n")
    monkeypatch.setattr(local, "VMSTAT", vmstat)
    launcher, first = ground.start()
    second = launcher.start(PLACE)
    records.send(ground.record(first), signal.SIGKILL)
    until(lambda: len(launcher.list()) == 1, "its end")
    vmstat.write_text("pgfault 9\noom_kill 4\n")
    records.send(ground.record(second), signal.SIGKILL)
    until(lambda: not launcher.list(), "its end")
    killed, out_of_memory = launcher.ended()
    assert (killed.outside, out_of_memory.outside) == (False, True)
    assert "ran out" in out_of_memory.cause
    assert "ran out" not in killed.cause


def test_what_a_worker_started_is_killed_with_it(ground: Ground) -> None:
    launcher, name = ground.start(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(f'up {child.pid}', flush=True); time.sleep(600)"
    )
    grandchild = psutil.Process(int(ground.log(name).split()[1]))
    launcher.drain(name, 0)
    psutil.wait_procs([grandchild], timeout=30)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


DAEMON = (
    "import os, signal, sys\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()\n"
    "os.wait(); signal.pause()"
)


def test_a_worker_has_ended_when_nothing_of_it_lives(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, name = ground.start(DAEMON)
    (daemon,) = [one for one in records.left_behind(launcher.run_dir, name) if one.pid != ground.record(name).pid]
    launcher.drain(name, 0)
    until(lambda: not records.alive(ground.record(name)), "the worker's own end")
    assert [one.name for one in ground.launcher().list()] == [name]
    assert launcher.ended() == []
    monkeypatch.setattr(local, "LINGER_S", 0.0)
    until(lambda: not launcher.list(), "the end of what it had started")
    assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
    assert [one.name for one in launcher.ended()] == [name]


def test_a_crash_is_told_with_its_last_words(ground: Ground) -> None:
    launcher = ground.launcher(CRASH)
    name = launcher.start(PLACE)
    until(lambda: not launcher.list(), "its end")
    (ended,) = launcher.ended()
    assert (ended.name, ended.model, ended.asked) == (name, "m", False)
    assert ended.cause == "exit 1: loading | ModelNotFound: no package of that name"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("one\ntwo\n\nthree\n", "two | three"),
        ("10:00 CRITICAL no such model\n10:01 INFO bye\n", "10:00 CRITICAL no such model"),
        (
            'Traceback (most recent call last):\n  File "x", line 1\n    raise OutOfMemory\n'
            "torch.OutOfMemory: 2 GB asked\n10:00 INFO Connected to Redis\n10:00 INFO ready\n",
            "torch.OutOfMemory: 2 GB asked",
        ),
        (
            "10:00 CRITICAL root: 2 mistakes:\n  tiers.a: no number\n  models.b: no engine\n10:01 INFO bye\n",
            "10:00 CRITICAL root: 2 mistakes: | tiers.a: no number | models.b: no engine",
        ),
        ("", ""),
    ],
)
def test_last_words_are_the_error_even_when_other_threads_spoke_after_it(tmp_path: Path, log: str, words: str) -> None:
    file = tmp_path / "w.log"
    file.write_text(log)
    assert last_words(file) == words
    assert last_words(tmp_path / "none.log") == ""


def test_a_worker_that_died_while_no_autoscaler_was_there_is_told_lost(ground: Ground) -> None:
    _, name = ground.start()
    records.send(ground.record(name), signal.SIGKILL)
    until(lambda: not records.alive(ground.record(name)), "its end")
    (ended,) = ground.launcher().ended()
    assert (ended.name, ended.asked) == (name, False)


def test_a_pid_used_again_is_neither_taken_for_a_worker_nor_signalled(ground: Ground) -> None:
    _, name = ground.start()
    launcher = ground.launcher()  # of an autoscaler that came later
    somebody = subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL)
    try:
        ended = ground.record(name)
        assert records.send(ended, signal.SIGKILL)
        record = replace(ended, pid=somebody.pid)
        record = replace(record, started_ticks=of_process(somebody.pid).started_ticks - 1)
        records.write(ground.state_dir / "run", record)
        for signum in (signal.SIGTERM, signal.SIGKILL):
            assert not records.send(record, signum)
        records.terminate(record, 1)
        launcher.drain(name, 0)
        assert launcher.list() == []
        assert [one.name for one in launcher.ended()] == [name]
        assert somebody.poll() is None
    finally:
        somebody.kill()
        somebody.wait()


def test_records_of_others_are_left_alone(ground: Ground) -> None:
    launcher, name = ground.start()
    run_dir = ground.state_dir / "run"
    server = replace(ground.record(name), role="server", name="server")
    records.write(run_dir, server)
    (run_dir / "broken.json").write_text("{")
    (run_dir / "strange.json").write_text('{"a": 1}')
    assert [one.name for one in launcher.list()] == [name]
    launcher.drain("server", 0)
    assert records.alive(server)
    assert [one.name for one in records.read_all(run_dir)] == [name, "server"]


def test_terminate_waits_and_kills_what_does_not_end(ground: Ground) -> None:
    _, name = ground.start(STUBBORN)
    record = ground.record(name)
    records.terminate(record, 0.1)
    assert not records.alive(record)


def beat(launcher: LocalLauncher, record: records.Record, **fields: object) -> Heartbeat:
    """What the worker of a record says of itself."""
    about = {"name": record.name, "model": record.model, "device": record.device, "pid": record.pid}
    origin = {"machine": record.machine, "pid_started_ticks": record.started_ticks, "launched_by": launcher.id}
    more = {"host": "here", "started_at": time.time(), "beat_at": time.time(), "state": WorkerState.READY}
    return Heartbeat.model_validate({**about, **origin, **more, **fields})


def test_a_worker_whose_record_was_never_written_is_adopted_and_can_be_drained(ground: Ground) -> None:
    _, name = ground.start()
    record = ground.record(name)
    records.remove(ground.state_dir / "run", name)  # as if its autoscaler had been killed before it wrote it
    launcher = ground.launcher()
    assert launcher.list() == []
    launcher.adopt([beat(launcher, record)])
    assert ground.record(name) == record
    launcher.drain(name, 60)
    draining = ground.record(name)
    launcher.adopt([beat(launcher, record)])
    assert ground.record(name) == draining  # what has a record keeps it
    until(lambda: not launcher.list(), "its end")
    assert [(one.name, one.asked) for one in launcher.ended()] == [(name, True)]
    launcher.adopt([beat(launcher, record)])  # its last word, still to be read
    assert launcher.list() == []


def test_one_that_is_adopted_while_it_drains_has_been_asked_to(ground: Ground) -> None:
    _, name = ground.start()
    record = ground.record(name)
    records.remove(ground.state_dir / "run", name)
    launcher = ground.launcher()
    launcher.adopt([beat(launcher, record, state=WorkerState.DRAINING)])
    assert ground.record(name).draining_since is not None


def test_workers_stay_ours_when_the_host_gets_another_name(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, name = ground.start()
    _, forgotten = ground.start()
    record = ground.record(forgotten)
    records.remove(ground.state_dir / "run", forgotten)
    told = beat(launcher, record)
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    successor = ground.launcher()
    successor.adopt([told])
    assert {one.name for one in successor.list()} == {name, forgotten}
    successor.drain(name, 60)
    until(lambda: [one.name for one in successor.list()] == [forgotten], "the drain")


@pytest.mark.parametrize(
    "fields",
    [
        {"launched_by": ""},
        {"launched_by": "local:elsewhere:00000000"},
        {"machine": "another boot"},
        {"pid_started_ticks": 1},
        {"pid": os.getpid(), "pid_started_ticks": of_process(os.getpid()).started_ticks},  # alive, and no worker at all
        {"name": "another-name"},
        {"name": "../../escaped"},
    ],
)
def test_a_heartbeat_gets_nobody_adopted_who_is_not_our_worker(ground: Ground, fields: dict[str, object]) -> None:
    launcher, name = ground.start()
    record = ground.record(name)
    records.remove(ground.state_dir / "run", name)
    launcher.adopt([beat(launcher, record, **fields)])
    assert launcher.list() == []


def test_a_folder_where_the_autoscaler_was_started_is_not_run_instead_of_ours(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("workers", "producer"):
        (tmp_path / package).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (tmp_path / package / file).write_text("raise SystemExit('somebody else')")
    monkeypatch.chdir(tmp_path)
    launcher = LocalLauncher(ground.state_dir, {"STOKER_FLEET": str(tmp_path / "none.toml")})
    ground.launchers.append(launcher)
    name = launcher.start(PLACE)
    until(lambda: not launcher.list(), "its end")
    assert "none.toml does not exist" in ground.log(name)
    assert "somebody else" not in ground.log(name)


def test_of_the_logs_of_workers_that_are_gone_the_newest_stay(ground: Ground) -> None:
    launcher, living = ground.start()
    folder = ground.state_dir / "logs"
    os.utime(folder / f"{living}.log", (1, 1))
    (folder / "autoscaler.log").write_text("not a worker's")
    os.utime(folder / "autoscaler.log", (1, 1))
    old = [f"m-{n:06x}" for n in range(60)]
    for n, name in enumerate(old):
        (folder / f"{name}.log").write_text("old")
        os.utime(folder / f"{name}.log", (100 + n, 100 + n))
    new = launcher.start(PLACE)
    assert {log.stem for log in folder.iterdir()} == {"autoscaler", living, new, *old[11:]}


def test_a_program_that_cannot_be_run_is_an_error_with_its_cause(ground: Ground) -> None:
    launcher = LocalLauncher(ground.state_dir, {}, ("/no/such/program",))
    with pytest.raises(LaunchError, match=r"no worker of m could be started: .*No such file"):
        launcher.start(PLACE)
    assert launcher.list() == []


def test_a_worker_whose_record_cannot_be_written_does_not_live_on_unknown(ground: Ground) -> None:
    launcher = ground.launcher()
    ground.state_dir.mkdir()
    (ground.state_dir / "run").write_text("a file in the way")
    children = set(psutil.Process().children())
    with pytest.raises(LaunchError, match="no record"):
        launcher.start(PLACE)
    assert set(psutil.Process().children()) == children


def test_a_crash_loop_is_slowed_down_and_the_decisions_quote_the_log(ground: Ground, redis: redis_py.Redis) -> None:
    clock = [time.time()]
    settings = Settings(
        models={"m": Model(engine="echo")},
        devices=(DeclaredDevice(name="cpu:0"),),
        scaling=Scaling(up_cooldown_s=0),
    )
    launcher = ground.launcher(CRASH)
    probe = DeclaredProbe(settings.devices)
    controller = Controller(settings, redis, probe, launcher, clock=lambda: clock[0])
    redis.lpush(keys.queue("m", "standard"), b"{}")
    for _ in range(62):  # half a minute
        controller.round()
        until(lambda: not launcher.list(), "the crash")
        clock[0] += 0.5
    decisions = [entry for _, entry in entries(redis, keys.decisions())]
    starts = [entry for entry in decisions if entry[b"action"] == b"start"]
    assert 4 <= len(starts) <= 6  # at about 0, 1, 3, 7, 15 and 31 s
    held = [entry[b"reason"].decode() for entry in decisions if entry[b"action"] == b"hold"]
    assert "ModelNotFound: no package of that name" in held[-1]
    assert f"{len(starts)} times in a row" in held[-1]


def test_records_are_replaced_whole(tmp_path: Path) -> None:
    record = records.of_process(os.getpid(), "worker", "w")
    records.write(tmp_path, record)
    records.write(tmp_path, replace(record, draining_since=5.0))
    assert records.read_all(tmp_path) == [replace(record, draining_since=5.0)]
    assert [file.name for file in tmp_path.iterdir()] == ["w.json"]
    records.remove(tmp_path, "w")
    records.remove(tmp_path, "w")
    assert records.read(tmp_path) == []
