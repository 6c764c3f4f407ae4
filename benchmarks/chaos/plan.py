"""When what is killed: drawn from a seed, tied to how many jobs are done, so that there is always work to interrupt."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill ``what`` (worker, autoscaler or redis), ``delay_s`` after ``done`` jobs were finished."""

    done: int
    what: str
    delay_s: float


def plan(rng: random.Random, jobs: int, workers: int, autoscalers: int, servers: int) -> list[Kill]:
    """Kills in order, each at a random moment of its own stretch of the run.

    The autoscalers are spread over the workers' kills: each of them forgets its back-off, which otherwise doubles
    with every worker that was killed before it lived a minute, and would leave hardly anything to kill.
    """
    kinds: list[str] = []
    if not autoscalers:
        kinds = ["worker"] * workers
    for n in range(autoscalers):
        share = workers * (n + 1) // autoscalers - workers * n // autoscalers
        block = ["worker"] * share
        block.insert(rng.randint(share - 1, share), "autoscaler")
        kinds += block
    for _ in range(servers):
        kinds.insert(rng.randint(0, len(kinds)), "redis")
    stretch = 0.95 * jobs / len(kinds)
    return [Kill(int((n + rng.random()) * stretch), what, rng.uniform(0.0, 0.3)) for n, what in enumerate(kinds)]
