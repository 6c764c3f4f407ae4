"""Failures that could spread: a replica that fails everything at once, and jobs that two workers died with."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import mean

from benchmarks.bars import Bar
from benchmarks.chaos.arena import MODEL, Arena, wait_for
from producer.contract import heartbeat, keys
from producer.contract.errors import StokerError
from producer.contract.heartbeat import WorkerState

from .stage import STUB, Say

JOBS = 200
SUSPECTS = 64
INTERACTIVE = 8
RUN_S = 1.0
BLACK_HOLE = """
[scaling]
interval_s = 0.2
[models.served]
engine = "openai"
memory_gb = 1
max_concurrency = 4
min_replicas = 2
max_replicas = 2
options = {{ model = "stub", command = ["{python}", "{stub}", "--port", "{{port}}", "--black-hole", "{file}"] }}
[[devices]]
name = "cpu:0"
[[devices]]
name = "cpu:1"
[[devices]]
name = "cpu:2"
"""


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """A black hole beside a good replica; an interactive job beside 64 suspects."""
    return [_black_hole(folder / "hole", say, JOBS // 4 if quick else JOBS), _suspects(folder / "suspects", say)]


def _black_hole(folder: Path, say: Say, count: int) -> Bar:
    """The share of jobs that fail beside a replica that answers 500 at once and is healthy."""
    hole = folder.with_suffix(".black-hole")
    tables = BLACK_HOLE.format(python=sys.executable, stub=STUB, file=hole)
    folder.parent.mkdir(parents=True, exist_ok=True)
    hole.touch()  # the first server to find it removes it, and is the black hole
    with Arena(folder, lease_s=2, options="delay_s = 0", tables=tables) as arena:
        arena.spawn("autoscaler", "autoscaler")
        wait_for(lambda: _ready(arena, "served") == 2, f"two replicas: see {arena.log('autoscaler')}")
        failed: dict[str, int] = {}
        for _ in range(count // 10):
            jobs = [arena.client.submit("served", "one two", parameters={"max_new_tokens": 8}) for _ in range(10)]
            for outcome in dict(arena.client.results(jobs, timeout=120)).values():
                if isinstance(outcome, StokerError):
                    failed[str(outcome)] = failed.get(str(outcome), 0) + 1
    for text, times in failed.items():
        say(f"   {times} times: {text}")
    share = sum(failed.values()) / count
    say(f"   {count} jobs beside a black hole: {share:.1%} failed")
    return Bar("share of jobs that fail beside a black hole", share, 0.05)


def _suspects(folder: Path, say: Say) -> Bar:
    """How long an interactive job takes beside jobs that two workers died with, times what it takes without."""
    with Arena(folder, lease_s=2, options=f"delay_s = {RUN_S}", max_concurrency=SUSPECTS) as arena:
        process = arena.worker("before")
        alone = _answer_s(arena)
        process.terminate()
        process.wait()
        jobs = arena.submit(arena.jobs(range(SUSPECTS)))
        for name in ("victim-0", "victim-1"):
            victim = arena.start_worker(name)
            wait_for(lambda name=name: _held_by(arena, name) == SUSPECTS, f"the jobs to be held by {name}")  # type: ignore[misc]
            victim.kill()
            victim.wait()
        arena.worker("beside")  # which also takes back what the dead one held
        wait_for(lambda: arena.redis.llen(keys.suspects(MODEL)) >= SUSPECTS - 1, "the jobs to be suspects")
        beside = _answer_s(arena)
        answered = dict(arena.client.results(jobs, timeout=600))
        well = sum(not isinstance(outcome, StokerError) for outcome in answered.values())
    say(
        f"   an interactive job takes {alone:.2f} s, beside {SUSPECTS} suspects {beside:.2f} s; {well} of them ran well"
    )
    ratio = beside / alone if well == SUSPECTS else None
    return Bar("an interactive job beside 64 suspects, times without", ratio, 2.0)


def _answer_s(arena: Arena) -> float:
    """The mean time from submission to answer of interactive jobs, one after the other."""
    took = []
    for number in range(INTERACTIVE):
        began = time.monotonic()
        arena.client.result(arena.client.submit(MODEL, f"interactive {number}", tier="interactive"), timeout=600)
        took.append(time.monotonic() - began)
    return mean(took)


def _held_by(arena: Arena, name: str) -> int:
    """How many jobs a worker holds. A lease is ``queue|worker.process.claim:number``."""
    return sum(lease.rpartition("|")[2].startswith(f"{name}.") for lease in arena.in_flight())


def _ready(arena: Arena, model: str) -> int:

    return sum((one.model, one.state) == (model, WorkerState.READY) for one in heartbeat.read_all(arena.redis))
