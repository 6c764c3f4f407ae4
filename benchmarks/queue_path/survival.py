"""Whether a contestant keeps its jobs when its worker is killed: SIGKILL in mid-work, again and again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from .roster import Contestant
from .stage import LOOK_S, Stage
from .turn import warm_up

NAP_S = 0.02
"""How long each job takes."""

JOBS = 20
"""Jobs before each kill, for each that a worker runs at the same time."""

BEGIN_S = 60.0
"""How long a worker may take until its first result."""

REDELIVER_S = 5.0
"""After how long a worker counts as dead, where that can be said."""

AT_ONCE = 4
"""Contestants at the same time."""

TRAFFIC_S = 1.0
"""A job more, every so often: some look for what was left behind only when something new comes."""


@dataclass(frozen=True, slots=True)
class Survival:
    """What became of the jobs."""

    jobs: int
    kills: int
    """Of workers that had jobs in hands."""
    lost: int
    waited_s: float
    """From the last kill until every job had its result, or until nothing more came."""

    @property
    def survives(self) -> bool:
        """Whether nothing was lost, although something was killed."""
        return self.kills > 0 and self.lost == 0


def endure_all(
    contestants: Sequence[Contestant], folder: Path, kills: int, seed: int, say: Callable[[str], None]
) -> dict[str, Survival]:
    """Some at a time: most of it is waiting for what was left behind, and nothing here is timed closely."""
    stop = threading.Event()
    survivals: dict[str, Survival] = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        futures = {
            threads.submit(endure, each, folder / f"kills-{n}", kills, random.Random(f"{seed} {each.name}"), stop): each
            for n, each in enumerate(contestants)
        }
        try:
            for future in as_completed(futures):
                name, found = futures[future].name, future.result()
                survivals[name] = found
                say(
                    f"  {name}: {found.kills} kills in mid-work, {found.lost} of {found.jobs} jobs lost, "
                    f"waited {found.waited_s:.0f} s"
                )
        except BaseException:
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise
    return survivals


def endure(contestant: Contestant, folder: Path, kills: int, rng: random.Random, stop: threading.Event) -> Survival:
    """Kill the worker at random moments, each time in the midst of fresh jobs, and count what has no result at last."""
    hit = jobs = 0
    with Stage(contestant, folder, NAP_S, REDELIVER_S) as stage:
        warm_up(stage)
        for _ in range(kills):
            jobs += JOBS * contestant.at_once
            stage.enqueue(JOBS * contestant.at_once)
            hit += _kill_in_mid_work(stage, rng, stop)
            stage.start_worker()
        begun = time.monotonic()
        lost, traffic = _wait(stage, contestant.patience_s, stop)
        waited_s = time.monotonic() - begun
    return Survival(jobs + traffic, hit, lost, waited_s)


def _kill_in_mid_work(stage: Stage, rng: random.Random, stop: threading.Event) -> bool:
    """Kill once the worker has begun with what is queued; False when it had nothing left."""
    queued = _left(stage)
    deadline = time.monotonic() + BEGIN_S
    while _left(stage) == queued and time.monotonic() < deadline:
        stop.wait(LOOK_S / 4)
    stop.wait(rng.uniform(0, 3 * NAP_S))
    stage.kill_worker()
    return _left(stage) > 0


def _wait(stage: Stage, patience_s: float, stop: threading.Event) -> tuple[int, int]:
    """Wait until no job is left, or nothing moved for so long; what is left, and how many came on top."""
    traffic = 0
    left, since = _left(stage), time.monotonic()
    next_s = since
    while left and time.monotonic() - since < patience_s and not stop.is_set():
        if time.monotonic() >= next_s:
            traffic += 1
            next_s += TRAFFIC_S
            stage.enqueue(1)
        stop.wait(5 * LOOK_S)
        if (now := _left(stage)) < left:
            left, since = now, time.monotonic()
    return left, traffic


def _left(stage: Stage) -> int:
    left: int = stage.tell("left", all=True)["left"]
    return left
