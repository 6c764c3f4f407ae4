"""Measuring one model's work: both processes up, one at work and the other idle, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from .direct import Direct
from .fleet import Fleet
from .pairs import Pair, Run, Way, order
from .workload import Work

WARM_UP = 0.1
"""Share of the work that each way runs first, unmeasured."""


def measure(
    works: Sequence[Work],
    rounds: int,
    *,
    fleet_file: Path,
    folder: Path,
    device: str,
    say: Callable[[str], None],
) -> Iterator[tuple[Work, list[Pair]]]:
    """The pairs of each work; works of one model share its processes.

    Args:
        folder: for logs and the server's data.
        say: told of each pair as it is measured.
    """
    for model in dict.fromkeys(work.model for work in works):
        with ExitStack() as stack:
            fleet = stack.enter_context(Fleet(folder, fleet_file, model, device))
            direct = stack.enter_context(Direct(folder, fleet_file, model, device))
            fleet.wait_until_ready()
            direct.wait_until_ready()
            ways: dict[Way, Callable[[Work], Run]] = {"fleet": fleet.run, "engine": direct.run}
            for work in (work for work in works if work.model == model):
                for way in ways.values():
                    way(work.share(WARM_UP))
                pairs = []
                for first, second in order(rounds):
                    runs = {way: ways[way](work) for way in (first, second)}
                    pairs.append(Pair(runs["fleet"], runs["engine"]))
                    say(line(work, pairs[-1]))
                yield work, pairs


def line(work: Work, pair: Pair) -> str:
    """Print a pair as progress."""
    return (
        f"{work.name}: fleet {pair.fleet.rate:,.1f} and engine {pair.engine.rate:,.1f} {work.unit}/s, "
        f"ratio {pair.ratio:.3f}, {pair.cpu_us_per_job:,.0f} us more CPU a job"
    )
