"""``stoker explain``, of what a real controller has left on a real server."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import redis as redis_py
from pydantic import TypeAdapter
from rich.console import Console

from autoscaler.controller import Controller
from autoscaler.devices.device import DeclaredProbe, Device
from autoscaler.devices.placement import Occupant
from autoscaler.launchers.protocol import Ended, Launched, Placement
from autoscaler.published_view import node_view
from deploy.cli.explain import screen_of
from deploy.explain import Explanation, explain_fleet
from deploy.machine.server import Server
from producer.contract import heartbeat, keys
from producer.contract.fleet.fleet_schema import DeclaredDevice, Model, Redis, Scaling
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState


class Ours:
    """A launcher with workers that never end."""

    id = "ours"

    def __init__(self) -> None:
        self.living: list[Launched] = []

    def start(self, placement: Placement) -> str:
        name = f"{placement.model}-{len(self.living)}"
        self.living.append(Launched(name, placement.model, placement.device, 1, time.time()))
        return name

    def drain(self, name: str, grace_s: float) -> None:  # noqa: ARG002  the protocol's
        raise AssertionError(f"{name} is needed")

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        pass

    def list(self) -> Sequence[Launched]:
        return self.living

    def ended(self) -> Sequence[Ended]:
        return []


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    return Settings(
        redis=Redis(url=server.url),
        models={
            "parrot": Model(engine="echo", max_replicas=2),
            "crow": Model(engine="echo"),
            "whale": Model(engine="echo", memory_gb=100),
        },
        devices=(DeclaredDevice(name="cpu:0"), DeclaredDevice(name="cpu:1")),
        scaling=Scaling(up_cooldown_s=60),
        state_dir=tmp_path,
    )


@pytest.fixture
def rounds(redis: redis_py.Redis, settings: Settings) -> Controller:
    """A controller that has seen jobs of two models, and started a worker of one, which serves ten jobs a second."""
    controller = Controller(settings, redis, DeclaredProbe(settings.devices), Ours())
    redis.lpush(keys.queue("parrot", "interactive"), b"{}")
    redis.lpush(keys.queue("whale", "standard"), b"{}")
    controller.round()
    redis.hset(keys.throughput("parrot"), mapping={"jobs_per_s": 10, "jobs_per_s:cpu": 10})
    ready = Heartbeat(
        name="parrot-0", model="parrot", device="cpu:0", device_type="cpu", host=socket.gethostname(), pid=1,
        pid_created_at=0, state=WorkerState.READY, started_at=time.time(), ready_at=time.time(), beat_at=time.time(),
    )  # fmt: skip
    heartbeat.write(redis, ready)
    redis.delete(keys.queue("parrot", "interactive"))
    controller.round()
    return controller


def screen(found: Explanation, settings: Settings) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(screen_of(found, settings))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_tells_what_is_wanted_why_it_is_there_and_what_one_more_would_take(
    rounds: Controller, redis: redis_py.Redis, settings: Settings
) -> None:
    found = explain_fleet(redis, ["parrot"])
    (parrot,) = found.models
    assert parrot.wanted is not None
    need = parrot.wanted.one_more
    assert (need.device, need.free_gb) == ("cpu:1", 4)
    shown = screen(found, settings)
    assert "any other" in shown  # the parameters that an echo takes
    for words in (
        "parrot  1 wanted; there: 1 ready  (policy slack)",
        "cpu 10 jobs/s",
        f"from {need.queued} jobs waiting in interactive on (0 now)",
        "room for it on cpu:1: 4.0 GB free, 1 GB needed",
        "after the last start (up_cooldown_s)",
        "parrot-0 on cpu:0, ready for",
        "start parrot-0 on cpu:0: 1 queued: interactive 1",
        "queued.interactive 1",
    ):
        assert words in shown, shown


def test_what_it_says_of_one_more_comes_true(rounds: Controller, redis: redis_py.Redis, settings: Settings) -> None:
    (parrot,) = explain_fleet(redis, ["parrot"]).models
    assert parrot.wanted is not None
    told = parrot.wanted.one_more.queued
    assert told is not None
    rounds.settings = settings.model_copy(update={"scaling": Scaling(up_cooldown_s=0)})
    few = told // 2
    redis.lpush(keys.queue("parrot", "interactive"), *([b"{}"] * few))
    rounds.round()
    assert len(rounds.launcher.list()) == 1
    # As many again as told: what came in meanwhile counts as arrivals, which only makes it sooner.
    redis.lpush(keys.queue("parrot", "interactive"), *([b"{}"] * (told - few)))
    rounds.round()
    assert [(one.model, one.device) for one in rounds.launcher.list()][1:] == [("parrot", "cpu:1")]


def test_a_model_that_fits_nowhere_and_one_at_its_maximum_say_so(
    rounds: Controller, redis: redis_py.Redis, settings: Settings
) -> None:
    shown = screen(explain_fleet(redis, ["whale"]), settings)
    assert "blocker     fits on no device: 100 GB needed, the largest, cpu:0, has 4 GB" in shown
    assert "wanted already" in shown
    one = settings.models["parrot"].model_copy(update={"max_replicas": 1})
    most = settings.model_copy(update={"models": {**settings.models, "parrot": one}})
    assert "never: max_replicas is 1" in screen(explain_fleet(redis, ["parrot"]), most)


def test_without_an_autoscaler_it_says_how_to_get_an_answer(redis: redis_py.Redis, settings: Settings) -> None:
    found = explain_fleet(redis, ["crow"])
    assert (found.sized_at, found.models[0].wanted) == (None, None)
    shown = screen(found, settings)
    assert "'stoker autoscaler --dry-run' shows what it would do" in shown
    redis.set(keys.sizes(), b'{"of": "another version"}')
    assert explain_fleet(redis, ["crow"]).sized_at is None


def test_it_tells_workers_started_by_hand_and_who_else_uses_a_gpu(redis: redis_py.Redis, settings: Settings) -> None:
    beat = Heartbeat(
        name="by-hand", model="parrot", device="cuda:0", host="h", pid=5, state=WorkerState.READY,
        started_at=time.time(), beat_at=time.time(),
    )  # fmt: skip
    heartbeat.write(redis, beat)
    heartbeat.write(redis, beat.model_copy(update={"name": "launched", "launched_by": "local:1"}))
    used_by = {5: 10.0, 7: 20.0, 9: 30.0}
    others = {5: "python -m workers, of root", 7: "python train.py, of ann", 9: "not visible here"}
    tenants = [Occupant("by-hand", "parrot", "cuda:0", 10.0, 10.0)]
    gpus = [
        Device("cuda:0", "cuda", "GPU", 80.0, 60.25, used_by, others=others),
        Device("cuda:1", "cuda", "GPU", 80.0, 0.25),
        Device("cuda:2", "cuda", "GPU", 80.0, 40.0),
        Device("cuda:3", "cuda", "GPU", 80.0, 40.0, {5: 40.0}),
    ]
    redis.set(keys.devices(), node_view("h", time.time(), "NVML", gpus, tenants).model_dump_json())
    shown = " ".join(screen(explain_fleet(redis, ["parrot"]), settings).split())
    assert re.search(r"by-hand on cuda:0, ready for [\d.]+ m?s; started by hand: the autoscaler counts it", shown)
    assert re.search(r"launched on cuda:0, ready for [\d.]+ m?s; its start is not in the journal", shown)
    assert (
        "memory that others use cuda:0 50.2 of 80.0 GB pid 9 (not visible here): 30.0 GB "
        "pid 7 (python train.py, of ann): 20.0 GB cuda:2 40.0 of 80.0 GB the driver does not tell by which processes "
        "cuda:3 40.0 of 80.0 GB by the workers there, beyond the memory_gb of their models"
    ) in shown


def test_json_is_for_programs_and_an_unknown_model_is_answered(
    rounds: Controller, redis: redis_py.Redis, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[redis]\nurl = "{settings.redis_url}"\n[models.parrot]\nengine = "echo"\nmax_replicas = 2\n')

    def stoker(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "deploy.cli", "--fleet", str(file), "explain", *arguments]
        return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)

    done = stoker("--json")
    assert done.returncode == 0, done.stderr
    told = TypeAdapter(Explanation).validate_python(json.loads(done.stdout))
    assert [one.model for one in told.models] == ["parrot"]
    assert told.models[0].decisions[0].inputs["queued"] == {"interactive": 1}
    wrong = stoker("parot")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no model 'parot' in the fleet; allowed: parrot" in wrong.stderr
