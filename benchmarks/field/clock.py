"""``stoker up`` on a machine whose clock is stepped while work runs, with servers that leave processes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import redis as redis_py

from benchmarks.bars import Bar
from producer import Client, Settings
from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.published import JournalEntry

from .stage import STUB, Say, await_rounds
from .stepped_clock import SteppedClock

STEPS_S = (3, -3, 10, -10, 3600, -3600)
ROUNDS = 3
JOBS = 8
MARK = "STOKER_BENCHMARK_FIELD"
"""In the environment of everything that is started here, so that what is left over can be found."""
FLEET = f"""
[scaling]
drain_s = 10
[models.parrot]
engine = "echo"
max_concurrency = 1
min_replicas = 1
options = {{ delay_s = 0.2 }}
[models.served]
engine = "openai"
min_replicas = 1
options = {{ model = "stub", command = ["{sys.executable}", "{STUB}", "--port", "{{port}}", "--child", "--daemon"] }}
[[devices]]
name = "cpu:0"
[[devices]]
name = "cpu:1"
"""


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Step the clock under a fleet that works, and take it down in the end."""
    folder.mkdir(parents=True)
    (folder / "fleet.toml").write_text(FLEET)
    clock = SteppedClock(folder / "clock")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "REDIS_"))}
    environment = {**kept, **clock.environment, MARK: str(folder), "OMP_NUM_THREADS": "1"}

    def stoker(*arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "deploy.cli", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)
        if done.returncode:
            say(f"   stoker {' '.join(arguments)}: exit code {done.returncode}: {done.stdout}{done.stderr}")

    try:
        stoker("up", "--detach")
        lost, twice = _step(Settings.load(folder / "fleet.toml"), clock, STEPS_S[-2:] if quick else STEPS_S, say)
        clock.set(60)
        stoker("down")
        left = _left(folder)
    finally:
        for pid in _left(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for command in left.values():
        say(f"   LEFT: {command}")
    say(f"   {len(STEPS_S)} steps: {lost} jobs lost, {twice} double starts, {len(left)} processes left after down")
    return [
        Bar("jobs lost by steps of the clock", lost, 0),
        Bar("double starts by steps of the clock", twice, 0),
        Bar("processes left after down", len(left), 0),
    ]


def _step(settings: Settings, clock: SteppedClock, steps: tuple[int, ...], say: Say) -> tuple[int, int]:
    """Jobs without the right answer, and starts beyond one for each model."""
    lost = offset = 0
    with Client(settings) as client, redis_py.Redis.from_url(settings.redis_url) as redis:
        for model in ("parrot", "served"):
            client.result(client.submit(model, "hello", parameters=_parameters(model)), timeout=120)
        for step in steps:
            jobs = [client.submit("parrot", f"{step}: {n}") for n in range(JOBS)]
            offset += step
            clock.set(offset)
            await_rounds(redis, ROUNDS)
            for n, job in enumerate(jobs):
                try:
                    lost += client.result(job, timeout=60).output != f"{step}: {n}"
                except StokerError as error:
                    say(f"   after a step of {step} s: {error}")
                    lost += 1
        events = [JournalEntry.of_fields(fields) for _, fields in redis.xrange(keys.decisions())]
    return lost, max(0, sum(one.action == "start" for one in events) - 2)


def _parameters(model: str) -> dict[str, int]:
    return {"max_new_tokens": 4} if model == "served" else {}


def _left(folder: Path) -> dict[int, str]:
    """Command lines by pid of what was started here and lives."""
    found = {}
    for process in psutil.process_iter(["pid"]):
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())
    return found
