"""The controller on a real server, with devices and workers that exist in memory only."""

import io
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
import redis as redis_py
from rich.console import Console

from autoscaler import retries
from autoscaler.controller import Controller
from autoscaler.devices import quarantine_record
from autoscaler.devices.device import Device
from autoscaler.launchers.protocol import Ended, Launched, LaunchError, Placement
from autoscaler.upkeep.sweep import Sweep
from deploy import health
from deploy.cli.status import screen_of
from deploy.machine.server import Server
from deploy.status import read_status as status
from producer.contract import heartbeat, keys
from producer.contract.fleet.fleet_schema import Model, Redis, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from redis_replies import entries

SETTINGS = Settings(
    models={"m": Model(engine="echo"), "n": Model(engine="echo")},
    scaling=Scaling(interval_s=0.05, up_cooldown_s=0, idle_s=30),
)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.01)


def shown(redis: redis_py.Redis) -> str:
    """What ``stoker status`` shows."""
    console = Console(width=250, file=io.StringIO())
    settings = SETTINGS.model_copy(update={"redis": Redis(url="redis://127.0.0.1/0")})
    console.print(screen_of(status(redis, settings)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Slots:
    """A probe of CPU slots."""

    source = "memory"

    def __init__(self, count: int) -> None:
        self.found = [Device(f"cpu:{n}", "cpu", "slot", 4) for n in range(count)]

    def devices(self) -> list[Device]:
        return list(self.found)


class MemoryLauncher:
    """Workers in memory: they live until they are told to die."""

    id = "memory"

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.living: dict[str, Launched] = {}
        self.dead: list[Ended] = []
        self.drained: list[tuple[str, float]] = []
        self.broken = ""
        self.started = 0

    def start(self, placement: Placement) -> str:
        if self.broken:
            raise LaunchError(self.broken)
        self.started += 1
        name = f"{placement.model}-{self.started}"
        self.living[name] = Launched(
            name, placement.model, placement.device, 1, self.clock(), device_uuid=placement.uuid
        )
        return name

    def drain(self, name: str, grace_s: float) -> None:
        self.drained.append((name, grace_s))
        self.die(name, asked=grace_s > 0, cause="exit 0")

    def die(self, name: str, *, asked: bool = False, cause: str) -> None:
        one = self.living.pop(name)
        key = one.device_uuid or one.device
        self.dead.append(Ended(name, one.model, asked, self.clock() - one.started_at, cause, device_key=key))

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        pass

    def list(self) -> list[Launched]:
        return [*self.living.values()]

    def ended(self) -> Sequence[Ended]:
        dead, self.dead = self.dead, []
        return dead


class Rig:
    """A controller, what it works with, and a clock that is set by hand."""

    def __init__(self, redis: redis_py.Redis, slots: int = 1) -> None:
        self.now = 1_000_000.0
        self.redis = redis
        self.launcher = MemoryLauncher(lambda: self.now)
        self.probe = Slots(slots)
        self.swept = 0
        self.excused: list[str] = []
        self.controller = self.another()

    def another(self) -> Controller:
        return Controller(
            SETTINGS,
            self.redis,
            self.probe,
            self.launcher,
            sweep=self.sweep,
            clock=lambda: self.now,
            excuse=lambda _, worker, counted: self.excused.append(f"{worker}{', counted' if counted else ''}"),
        )

    def sweep(self, _: Settings) -> None:
        self.swept += 1

    def push(self, model: str = "m", count: int = 1) -> None:
        for _ in range(count):
            self.redis.lpush(keys.queue(model, "standard"), b"{}")

    def beat(
        self, name: str, launched_by: str = "memory", device: str = "cpu:0", served: bool = True, **more: str
    ) -> None:
        one = self.launcher.living.get(name)
        beat = Heartbeat(
            name=name, model=one.model if one else "m", device=device, pid=1,
            **{"host": socket.gethostname(), **more}, pid_created_at=0, launched_by=launched_by,
            state=WorkerState.READY, started_at=self.now,
            ready_at=self.now if served else None, beat_at=time.time(), capacity=4,
        )  # fmt: skip
        heartbeat.write(self.redis, beat)

    def decisions(self) -> list[dict[str, str]]:
        return [
            {key.decode(): value.decode() for key, value in entry.items()}
            for _, entry in entries(self.redis, keys.decisions())
        ]

    def actions(self) -> list[str]:
        return [entry["action"] for entry in self.decisions()]

    def devices(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.redis.get(keys.devices()) or "{}")["devices"]
        return found


@pytest.fixture
def rig(redis: redis_py.Redis) -> Rig:
    return Rig(redis)


def test_from_zero_to_one_and_back_to_zero_with_reasons_and_devices_to_be_read(rig: Rig) -> None:
    rig.controller.round()
    assert rig.devices()[0]["state"] == "idle"
    assert rig.actions() == []
    rig.push()
    rig.controller.round()
    assert list(rig.launcher.living) == ["m-1"]
    rig.controller.round()
    assert rig.devices()[0] | {"state": "reserved", "workers": ["m-1"]} == rig.devices()[0]
    rig.beat("m-1")
    rig.redis.rpop(keys.queue("m", "standard"))
    rig.controller.round()
    assert rig.devices()[0]["state"] == "allocated"
    rig.now += 31
    rig.controller.round()
    assert rig.launcher.drained == [("m-1", SETTINGS.scaling.drain_s)]
    rig.controller.round()
    assert rig.devices()[0]["state"] == "idle"
    start, drain = rig.decisions()
    assert (start["action"], start["model"], start["worker"], start["device"]) == (
        "start",
        "m",
        "m-1",
        "cpu:0",
    )
    assert "1 queued: standard 1" in start["reason"]
    assert (drain["action"], drain["worker"]) == ("drain", "m-1")
    assert "nothing queued, running or arriving for 31 s" in drain["reason"]


def test_a_worker_that_the_autoscaler_kills_is_told_with_the_reason_and_its_jobs_count_no_loss(rig: Rig) -> None:
    rig.push()
    rig.controller.round()
    rig.controller.round()
    rig.now += SETTINGS.scaling.start_s + 1
    rig.controller.round()
    assert rig.launcher.drained == [("m-1", 0.0)]
    assert rig.excused == []
    rig.controller.round()
    lost = next(entry for entry in rig.decisions() if entry["action"] == "lost")
    assert "killed: no heartbeat for 301 s (scaling.start_s 300)" in lost["reason"]
    assert rig.excused == ["m-1"]


def test_the_jobs_of_a_worker_whose_gpu_turns_out_to_be_lost_count_no_loss(rig: Rig) -> None:
    well = Device("cuda:0", "cuda", "GPU", 80, uuid="GPU-1")
    rig.probe.found = [well, Device("cuda:1", "cuda", "GPU", 80, uuid="GPU-2")]
    rig.push()
    rig.controller.round()
    (one,) = rig.launcher.living.values()
    rig.launcher.die(one.name, cause="exit 4: the engine is lost")
    rig.controller.round()
    assert rig.excused == []
    rig.now += 2
    rig.probe.found = [replace(gpu, xids=(79,)) if gpu.uuid == one.device_uuid else gpu for gpu in rig.probe.found]
    rig.controller.round()
    rig.controller.round()
    assert rig.excused == [f"{one.name}, counted"]


@pytest.mark.parametrize("seen_later_s", [0, 2])
def test_deaths_by_their_gpus_are_no_failed_starts(rig: Rig, seen_later_s: float) -> None:
    rig.probe.found = [Device(f"cuda:{nth}", "cuda", "GPU", 80, uuid=f"GPU-{nth}") for nth in range(6)]
    rig.push()
    rig.controller.round()
    for _ in range(5):
        (one,) = rig.launcher.living.values()
        rig.launcher.die(one.name, cause="exit 4: the engine is lost")
        if seen_later_s:
            rig.controller.round()
            rig.now += seen_later_s
        dead = one.device_uuid
        rig.probe.found = [replace(gpu, xids=(79,) if gpu.uuid == dead else ()) for gpu in rig.probe.found]
        rig.controller.round()
        assert len(rig.launcher.living) == 1, "its successor starts at once"


def test_a_worker_that_ends_because_its_engine_fails_is_followed_later_each_time(rig: Rig) -> None:
    rig.push()
    for pause in (1, 2, 4):
        rig.controller.round()
        (name,) = rig.launcher.living
        rig.now += 100
        rig.beat(name, failing="9 of its last 9 requests failed")
        rig.launcher.die(name, cause="exit 6")
        rig.controller.round()
        rig.now += pause - 0.1
        rig.controller.round()
        assert rig.launcher.living == {}
        rig.now += 0.2


def test_a_model_that_an_operator_retries_starts_at_once(rig: Rig) -> None:
    rig.push()
    for _ in range(6):  # the last pause is 32 s
        rig.now += 30
        rig.controller.round()
        if rig.launcher.living:
            rig.launcher.die(next(iter(rig.launcher.living)), cause="exit 3: no such model")
    rig.controller.round()
    assert not rig.launcher.living
    retries.ask(rig.redis, "m")
    rig.controller.round()
    assert len(rig.launcher.living) == 1
    assert rig.actions()[-2:] == ["retry", "start"]
    assert not rig.redis.exists(keys.retry_requests())


def test_a_clock_that_is_set_drains_nobody_and_shortens_no_quarantine(rig: Rig) -> None:
    rig.probe.found = [Device("cuda:0", "cuda", "GPU", 80, temperature_c=91), Device("cuda:1", "cuda", "GPU", 80)]
    steps: list[float] = []
    rig.controller.stepped_s = lambda: steps.pop() if steps else 0.0
    rig.push()
    rig.controller.round()
    rig.beat("m-1")
    rig.redis.rpop(keys.queue("m", "standard"))
    rig.controller.round()
    rig.probe.found[0] = replace(rig.probe.found[0], temperature_c=50)
    for step in (3600.0, -3600.0, 3600.0):
        rig.now += step
        steps.append(step)
        for _ in range(8):
            rig.now += 1
            rig.controller.round()
    assert rig.launcher.drained == []
    assert rig.devices()[0]["state"] == "faulty"
    rig.now += SETTINGS.quarantine.hold_s
    rig.controller.round()
    assert rig.devices()[0]["state"] == "idle"
    assert rig.launcher.drained == [("m-1", SETTINGS.scaling.drain_s)]


def test_a_faulty_device_is_left_and_a_successor_does_not_use_it_before_its_time(rig: Rig) -> None:
    rig.probe.found = [Device("cuda:0", "cuda", "GPU", 80, temperature_c=91), Device("cuda:1", "cuda", "GPU", 80)]
    rig.push()
    rig.controller.round()
    assert [one.device for one in rig.launcher.list()] == ["cuda:1"]
    assert rig.devices()[0]["state"] == "faulty"
    rig.probe.found[0] = replace(rig.probe.found[0], temperature_c=50)
    rig.redis.delete(keys.leader())  # as if the first had fallen silent
    second = rig.another()
    rig.push("n")
    rig.probe.found.pop()
    for _ in range(15):
        rig.now += 1
        second.round()
    assert [one.device for one in rig.launcher.list()] == ["cuda:1"]
    assert "cuda:0 is faulty (hot: 91 C; out for" in next(e["reason"] for e in rig.decisions() if e["action"] == "hold")
    rig.now += SETTINGS.quarantine.hold_s
    second.round()
    assert [one.device for one in rig.launcher.list()] == ["cuda:1", "cuda:0"]
    told = [entry for entry in rig.decisions() if entry["device"] == "cuda:0"]
    assert [entry["action"] for entry in told] == ["quarantine", "release", "start"]
    assert json.loads(told[0]["inputs"])["temperature_c"] == 91
    assert "well again; was out for" in told[1]["reason"]


def test_what_is_remembered_of_devices_goes_when_it_is_long_over(rig: Rig) -> None:
    rig.probe.found = [Device("cuda:0", "cuda", "GPU", 80, temperature_c=91)]
    rig.controller.round()
    (kept,) = rig.redis.hgetall(keys.quarantine())
    assert kept == b"cuda:0"
    rig.redis.hset(keys.quarantine(), "cuda:7", "of another version")
    assert list(rig.controller.journal.recall()) == ["cuda:0"]
    rig.probe.found = [replace(rig.probe.found[0], temperature_c=50)]
    for passed in (0, *[10] * 20, 4000):
        rig.now += passed
        rig.controller.round()
    assert list(rig.redis.hkeys(keys.quarantine())) == [b"cuda:7"]


def test_a_quarantine_that_could_not_be_written_down_is_written_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.probe.found = [Device("cuda:0", "cuda", "GPU", 80, temperature_c=91)]

    def away(*_: object) -> None:
        raise redis_py.ConnectionError("away")

    with monkeypatch.context() as outage:
        outage.setattr(rig.redis, "hset", away)
        with pytest.raises(redis_py.ConnectionError):
            rig.controller.round()
    rig.controller.round()
    assert list(rig.controller.journal.recall()) == ["cuda:0"]


def test_a_released_device_is_taken_back_at_once_unless_it_is_still_not_well(rig: Rig) -> None:
    host = socket.gethostname()
    rig.probe.found = [
        Device("cuda:0", "cuda", "GPU", 80, xids=(79,), ecc_errors=2),
        Device("cuda:1", "cuda", "GPU", 80, temperature_c=91),
    ]
    rig.controller.round()
    rig.probe.found[0] = replace(rig.probe.found[0], xids=())
    assert "XID 79" in quarantine_record.release(rig.redis, host, "cuda:0").reason
    quarantine_record.release(rig.redis, host, "cuda:1")
    rig.now += 1
    rig.controller.round()
    assert [device["state"] for device in rig.devices()] == ["idle", "faulty"]
    assert rig.actions() == ["quarantine", "quarantine", "release"]
    assert "released by an operator; was out for 1 s: XID 79" in rig.decisions()[-1]["reason"]
    rig.controller.round()
    assert [device["state"] for device in rig.devices()] == ["idle", "faulty"]  # its old memory errors are known
    with pytest.raises(quarantine_record.NotInQuarantine, match=r"cuda:0 of .* those that are: cuda:1"):
        quarantine_record.release(rig.redis, host, "cuda:0")


def test_the_node_has_a_summary(rig: Rig) -> None:
    rig.controller.round()
    node = json.loads(rig.redis.get(keys.devices()) or "{}")
    expected = {"host": socket.gethostname(), "total": 1, "idle": 1, "faulty": 0, "memory_gb": 4, "free_gb": 4}
    assert expected.items() <= node.items()


def test_the_devices_view_expires_with_its_writer(rig: Rig) -> None:
    rig.controller.round()
    assert 0 < rig.redis.pttl(keys.devices()) <= 5000


def test_a_hindrance_is_written_once_and_again_when_it_comes_back(rig: Rig) -> None:
    rig.push("m")
    rig.controller.round()
    rig.beat("m-1")
    rig.push("n")
    for _ in range(5):
        rig.now += 1
        rig.controller.round()
    assert rig.actions() == ["start", "hold"]
    assert "no idle device: cpu:0 is held by m-1" in rig.decisions()[-1]["reason"]
    queue = keys.queue("n", "standard")
    rig.redis.delete(queue)
    rig.controller.round()
    rig.push("n")
    rig.controller.round()
    assert rig.actions() == ["start", "hold", "hold"]


def test_an_idle_worker_makes_room_for_another_model(rig: Rig) -> None:
    rig.push("m")
    rig.controller.round()
    rig.beat("m-1")
    rig.redis.delete(keys.queue("m", "standard"))
    rig.now += 1
    rig.controller.round()
    rig.now += 15  # less than idle_s
    rig.push("n")
    rig.controller.round()
    rig.controller.round()
    assert rig.actions() == ["start", "drain", "hold", "start"]
    assert [one.model for one in rig.launcher.list()] == ["n"]


@pytest.mark.parametrize(("served", "pauses"), [(False, (1, 2, 4)), (True, (1, 1, 1))])
def test_a_worker_that_ends_unasked_is_forgotten_at_once_and_one_that_never_served_followed_later_each_time(
    rig: Rig, served: bool, pauses: tuple[int, ...]
) -> None:
    rig.push()
    for pause in pauses:
        rig.controller.round()
        (name,) = rig.launcher.living
        rig.beat(name, served=served)
        rig.launcher.die(name, cause="exit 1: ModelNotFound: no such package")
        rig.controller.round()
        assert heartbeat.read_all(rig.redis) == []
        rig.now += pause - 0.1
        rig.controller.round()
        assert rig.launcher.living == {}
        rig.now += 0.2
    assert rig.actions() == ["start", "lost", "hold"] * 3
    assert "no such package" in rig.decisions()[-1]["reason"]


def test_a_launcher_that_cannot_start_is_not_asked_every_round(rig: Rig) -> None:
    rig.launcher.broken = "no worker of m could be started: out of memory"
    rig.push()
    for _ in range(5):
        rig.controller.round()
    assert rig.actions() == ["lost", "hold"]
    assert "out of memory" in rig.decisions()[0]["reason"]


def test_a_worker_that_somebody_else_started_holds_its_device_and_is_left_alone(rig: Rig) -> None:
    rig.beat("by-hand", launched_by="")
    rig.controller.round()
    assert rig.devices()[0]["workers"] == ["by-hand"]
    rig.now += 1000
    rig.push("n")
    rig.controller.round()
    assert rig.launcher.drained == []
    assert rig.launcher.living == {}
    assert rig.actions() == ["hold"]


def test_a_second_autoscaler_waits_and_takes_over_with_the_same_workers(rig: Rig) -> None:
    second = rig.another()
    rig.controller.round()
    second.round()
    assert rig.swept == 1
    rig.push()
    second.round()
    assert rig.launcher.living == {}
    rig.controller.round()
    rig.redis.delete(keys.leader())  # as if the first had fallen silent
    second.round()
    rig.controller.round()
    assert list(rig.launcher.living) == ["m-1"]
    assert rig.swept == 3


def test_a_worker_is_found_on_its_gpu_by_uuid_whatever_the_gpu_and_the_host_are_called(rig: Rig) -> None:
    gpus = [Device(f"cuda:{n}", "cuda", "GPU", 80, uuid=f"GPU-{n}") for n in range(2)]
    rig.probe.found = gpus
    rig.push()
    rig.controller.round()
    (name,) = rig.launcher.living
    assert rig.launcher.living[name].device_uuid == "GPU-0"
    rig.beat("by-hand", launched_by="", device="cuda:1", device_uuid="GPU-1", host="another-name")
    # The autoscaler is started anew, and the order is another.
    rig.probe.found = [replace(gpus[1], id="cuda:0"), replace(gpus[0], id="cuda:1")]
    rig.redis.delete(keys.leader())
    rig.another().round()
    assert [one["workers"] for one in rig.devices()] == [["by-hand"], [name]]
    rig.probe.found = [replace(gpus[1], id="cuda:0", temperature_c=91), replace(gpus[0], id="cuda:1")]
    rig.redis.delete(keys.leader())
    rig.another().round()
    assert rig.launcher.drained == []  # the hot one is the neighbour


def test_decisions_are_dropped_when_the_lease_ran_out_while_they_were_made(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.push()
    look = rig.probe.devices

    def slow_look() -> list[Device]:
        rig.redis.set(keys.leader(), b"rival")  # as when NVML took longer than the lease lasts
        return look()

    rig.probe.devices = slow_look  # type: ignore[method-assign]  # a look that takes long
    rig.controller.round()
    assert rig.launcher.started == 0
    assert "the lease ran out during this round" in caplog.text
    assert rig.redis.get(keys.leader()) == b"rival"
    rig.probe.devices = look  # type: ignore[method-assign]  # as before
    rig.redis.delete(keys.leader())
    rig.controller.round()
    assert rig.launcher.started == 1


def test_each_decision_is_fenced_by_the_lease(rig: Rig) -> None:
    rig.probe.found = [Device(f"cpu:{n}", "cpu", "slot", 4) for n in range(2)]
    rig.push("m")
    rig.push("n")
    start = rig.launcher.start

    def slow_start(placement: Placement) -> str:
        rig.redis.delete(keys.leader())  # it ran out, and no autoscaler has taken it yet
        return start(placement)

    rig.launcher.start = slow_start  # type: ignore[method-assign]  # a start that takes long
    rig.controller.round()
    assert rig.launcher.started == 1


def test_stopping_leaves_the_workers_and_gives_up_the_lease(rig: Rig) -> None:
    rig.push()
    rig.controller.start()
    until(lambda: rig.launcher.living, "a worker")
    rig.controller.stop()
    assert list(rig.launcher.living) == ["m-1"]
    assert rig.launcher.drained == []
    assert not rig.redis.exists(keys.leader())


def test_a_round_that_fails_is_followed_by_another_and_each_sweeps(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail() -> Sequence[Ended]:
        calls.append(1)
        raise ValueError("a bad launcher")

    rig.launcher.ended = fail  # type: ignore[method-assign]  # of this one only
    rig.controller.start()
    until(lambda: len(calls) >= 3, "three rounds")
    rig.controller.stop()
    assert "a bad launcher" in caplog.text
    assert rig.swept >= 3


def test_rounds_that_fail_in_a_row_are_logged_once_and_told_in_status_and_to_the_health_check(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    look, calls = rig.probe.devices, []

    def fail() -> list[Device]:
        calls.append(1)
        raise AttributeError("module 'pynvml' has no attribute 'nvmlInit'")

    rig.probe.devices = fail  # type: ignore[method-assign]  # of this one only
    rig.controller.start()
    until(lambda: health.problem(rig.redis, "autoscaler", "here"), "word of it")
    told = health.problem(rig.redis, "autoscaler", "here")
    assert "rounds of the autoscaler in a row failed, nothing is started or drained: AttributeError" in told
    assert "in a row failed" in shown(rig.redis)
    until(lambda: len(calls) >= 8, "more of them")
    rig.probe.devices = look  # type: ignore[method-assign]  # as before
    until(lambda: not health.problem(rig.redis, "autoscaler", "here"), "the end of it")
    rig.controller.stop()
    assert caplog.text.count("this round failed") == 1
    assert caplog.text.count("3 rounds in a row failed") == 1
    assert caplog.text.count("rounds succeed again") == 1


def test_gpus_that_cannot_be_read_are_told_in_status_once_in_the_log_and_nothing_is_drained(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    well = [Device(f"cuda:{n}", "cuda", "GPU", 80, uuid=f"GPU-{n}") for n in range(2)]
    rig.probe.found = well
    rig.push()
    rig.controller.round()
    rig.probe.found = [replace(one, fault="NVML: nvmlDeviceGetCount does not return") for one in well]
    rig.push("n")
    for _ in range(5):
        rig.controller.round()
    screen = shown(rig.redis)
    assert "! cuda:0, cuda:1: NVML: nvmlDeviceGetCount does not return. Nothing new is placed there" in screen
    assert caplog.text.count("nothing new is placed") + caplog.text.count("Nothing new is placed") == 1
    assert (rig.launcher.started, rig.launcher.drained) == (1, [])
    rig.probe.found = well
    rig.controller.round()
    assert (rig.launcher.started, rig.launcher.drained) == (2, [])
    assert "! " not in shown(rig.redis)


def test_an_xid_error_that_does_not_count_is_logged_once_of_each_gpu(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.probe.found = [Device(f"cuda:{n}", "cuda", "GPU", 80, uuid=f"GPU-{n}", xids=(31,)) for n in range(2)]
    for _ in range(3):
        rig.controller.round()
    assert caplog.text.count("is ignored: it is the program's own fault") == 2
    assert rig.actions() == []


def test_a_sweep_that_fails_stops_nothing_and_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fail(settings: Settings) -> None:
        raise ValueError("a bad sweep")

    rig.controller.sweep = fail
    rig.push()
    for _ in range(3):
        rig.controller.round()
    assert list(rig.launcher.living) == ["m-1"]
    assert sum("jobs of lost workers are not taken back" in one.getMessage() for one in caplog.records) == 1


def test_a_model_whose_lost_jobs_cannot_be_taken_back_does_not_keep_the_others_from_it(
    redis: redis_py.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = Sweep(redis)
    redis.set(keys.leases("m"), "of another type")
    for _ in range(2):
        redis.hset(keys.inflight("n"), "n.standard|w:1", b"{}")
        redis.zadd(keys.leases("n"), {"n.standard|w:1": 1})
        sweep(SETTINGS)
        assert not redis.exists(keys.inflight("n"))
    assert sum("its lost jobs are not taken back" in one.getMessage() for one in caplog.records) == 1


def test_a_sweep_goes_on_with_new_models_and_with_those_that_left(redis: redis_py.Redis) -> None:
    def lose(model: str) -> None:
        redis.hset(keys.inflight(model), f"{model}.standard|w:1", b"{}")
        redis.zadd(keys.leases(model), {f"{model}.standard|w:1": 1})

    sweep = Sweep(redis)
    sweep(SETTINGS)
    lose("m")
    lose("new")
    sweep(SETTINGS.model_copy(update={"models": {"new": Model(engine="echo")}}))
    assert redis.llen("m.standard") == redis.llen("new.standard") == 1


@pytest.mark.parametrize("measured", [b"nan", b"inf", b"fast"])
def test_a_model_with_a_mad_measurement_is_no_hindrance_to_the_others(rig: Rig, measured: bytes) -> None:
    rig.probe.found.append(Device("cpu:1", "cpu", "slot", 4))
    rig.redis.hset(keys.throughput("m"), "jobs_per_s", measured)
    rig.push("m")
    rig.push("n")
    rig.controller.round()
    assert "n" in [one.model for one in rig.launcher.list()]


def test_a_model_that_may_not_be_read_is_no_hindrance_to_the_others_and_keeps_its_workers(
    rig: Rig, server: Server
) -> None:
    rig.push("m")
    rig.controller.round()
    rig.beat("m-1")
    rig.redis.delete("m.standard")
    rig.probe.found.append(Device("cpu:1", "cpu", "slot", 4))
    own = [keys.workers(), keys.worker("*"), keys.leader(), keys.devices(), keys.decisions()]
    rig.redis.acl_setuser("half", enabled=True, nopass=True, categories=["+@all"], keys=["*:n", "n.*", *own])
    with redis_py.Redis.from_url(server.url, username="half", password="any") as half:  # noqa: S106  none is asked
        rig.redis.delete(keys.leader())
        whole, rig.redis = rig.redis, half
        blind = rig.another()
        rig.push("n")
        for _ in range(2):
            blind.round()
            rig.now += 1000
    whole.acl_deluser("half")
    assert [one.model for one in rig.launcher.list()] == ["m", "n"]
    assert rig.launcher.drained == []


def test_a_decision_that_cannot_be_carried_out_does_not_stop_the_next(rig: Rig) -> None:
    start = rig.launcher.start

    def fail_for_m(placement: Placement) -> str:
        if placement.model == "m":
            raise ValueError("not what a launcher should raise")
        return start(placement)

    rig.launcher.start = fail_for_m  # type: ignore[method-assign]  # of this one only
    rig.probe.found.append(Device("cpu:1", "cpu", "slot", 4))
    rig.push("m")
    rig.push("n")
    rig.controller.round()
    assert list(rig.launcher.living) == ["n-1"]


def test_settings_that_change_are_taken_in_the_next_round(rig: Rig) -> None:
    rig.push("m")
    rig.controller.round()
    rig.beat("m-1")
    rig.probe.found.append(Device("cpu:1", "cpu", "slot", 4))
    slow = SETTINGS.scaling.model_copy(update={"interval_s": 60})
    rig.controller.reread = lambda: SETTINGS.model_copy(
        update={"models": {"new": Model(engine="echo")}, "scaling": slow}
    )
    rig.push("new")
    rig.controller.round()
    assert rig.launcher.drained == [("m-1", SETTINGS.scaling.drain_s)]
    assert [one.model for one in rig.launcher.list()] == ["new"]
    assert "m is not in fleet.toml any more" in rig.decisions()[-2]["reason"]
    assert rig.redis.pttl(keys.leader()) > 60_000  # a lease that outlives the slower rounds


@pytest.fixture
def own_rig(own_server: Server) -> Iterator[Rig]:
    client = redis_py.Redis.from_url(own_server.url)
    rig = Rig(client)
    yield rig
    rig.controller.stop()
    client.close()


def test_redis_away_at_the_start_and_in_the_middle(
    own_rig: Rig, own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    own_server.kill()
    own_rig.controller.start()
    until(lambda: "does not answer" in caplog.text, "the word that it is away")
    own_server.start()
    own_rig.push()
    until(lambda: own_rig.launcher.living, "a worker, once Redis is there")
    own_server.kill()
    until(lambda: caplog.text.count("does not answer") == 2, "the word that it is away again")
    before = len(caplog.records)
    time.sleep(10 * SETTINGS.scaling.interval_s)  # rounds that must say nothing: there is no event to wait for
    assert len(caplog.records) == before
    own_server.start()
    until(lambda: caplog.text.count("Redis serves again") == 2, "the word that it is back")
    own_rig.push("n")
    until(lambda: own_rig.actions()[-1:] == ["hold"], "decisions to go on")
    assert list(own_rig.launcher.living) == ["m-1"]
