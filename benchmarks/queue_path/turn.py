"""One contestant's turn in a round: enqueue, then drain, on a server and with a worker of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from producer import Client, Settings
from producer.contract.message.job import Result

from .events import Monitor
from .roster import Contestant
from .stage import WARM_UP, Stage

INPUTS = 256
"""Inputs of a wide job; the application queues as many."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn found. Times in seconds, rates in jobs per second."""

    cpu_s: float
    """CPU time of the worker for each job, at saturation."""
    throughput: float
    rates: dict[str, float]
    """Jobs enqueued per second, in each way; nothing consumes meanwhile."""
    heard: float | None
    """Share of the jobs with a success event; None for peers that send no events."""


def play(contestant: Contestant, folder: Path, jobs: int) -> Turn:
    """Measure one contestant once."""
    jobs = max(WARM_UP, int(jobs * contestant.share))
    with Stage(contestant, folder) as stage, Monitor(stage.server.url) as monitor:
        warm_up(stage)
        worker = stage.worker
        worker.freeze()
        rates = {way: jobs / stage.enqueue(jobs, way) for way in contestant.ways}
        begun_cpu, begun = worker.cpu_s(), time.perf_counter()
        worker.thaw()
        stage.drain()
        took_s, cpu_s = time.perf_counter() - begun, worker.cpu_s() - begun_cpu
        drained = jobs * len(contestant.ways)
        heard = min(1.0, monitor.wait_for(drained + WARM_UP) / (drained + WARM_UP)) if contestant.sends_events else None
    return Turn(cpu_s / drained, drained / took_s, rates, heard)


def play_wide(contestant: Contestant, folder: Path, jobs: int) -> float:
    """Inputs per second through one worker of ours, with many inputs a job, at saturation."""
    with Stage(contestant, folder) as stage:
        warm_up(stage)
        worker = stage.worker
        worker.freeze()
        stage.enqueue(jobs, "enqueue_wide")
        begun = time.perf_counter()
        worker.thaw()
        stage.drain()
        took_s = time.perf_counter() - begun
        _check_wide(stage.fleet)
    return jobs * INPUTS / took_s


def warm_up(stage: Stage) -> None:
    """Have the worker do some jobs, in each way, so that everything is loaded and connected."""
    for way in stage.contestant.ways:
        stage.enqueue(WARM_UP // len(stage.contestant.ways), way)
    stage.drain()
    stage.tell("ask", times=10, pause_s=0)


def _check_wide(fleet: Path) -> None:
    """Rates of jobs that were not answered whole would be worth nothing: look at one that is."""
    with Client(Settings.load(fleet)) as client:
        inputs: list[object] = [f"input {n}" for n in range(INPUTS)]
        found: Result = client.result(client.submit("echo", inputs), timeout=10)  # type: ignore[arg-type]
        if found.output != inputs:
            raise RuntimeError(f"a job of {INPUTS} inputs was answered otherwise")
