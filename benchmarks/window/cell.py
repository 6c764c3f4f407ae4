"""One cell: every policy on the same arrivals, and what each came to.

A cell has as many jobs as its answer needs (Y. S. Chow and H. Robbins, On the asymptotic theory of fixed-width
sequential confidence intervals for the mean, 1965): how much the difference to the best fixed window varies from one
stretch of jobs to the next tells how many bring its standard error down to what was asked for, or to a tenth of what
lies between the difference and its bar, on whichever side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import stdev
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.bars import percentile

from .clairvoyant import clairvoyant
from .grid import MOST, Cell, arrivals
from .play import Played, Seconds, play, play_in_turns
from .policies import ALONE, GREEDY, OURS, ways

BEST = "clairvoyant"
FORESEEN = 2000
"""Jobs, the last of a cell, over which the clairvoyant best is searched."""
STRETCHES = 30
"""Number of parts into which a cell's jobs are divided, to measure the variance."""
BAR = 0.5
"""Points that a cell may be behind the best fixed window."""
CLEAR = 10
"""Standard errors between a difference and its bar beyond which more precision tells nothing."""
MORE = 1.1
"""Times as many jobs as the standard error asks for: it is an estimate too."""
MOST_JOBS = 3_000_000
"""In a cell, however much it varies."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A policy in a cell: the share of jobs in time, the device's seconds for each job, and latencies in seconds."""

    attained: float
    device_s: float
    p50_s: float = 0.0
    p99_s: float = 0.0
    by_stretch: tuple[float, ...] = ()
    """The share in time of each stretch of jobs."""

    @classmethod
    def of(cls, played: Played, target_s: float) -> Figure:
        """What a run came to."""
        latencies = played.latencies
        p50_s, p99_s = (percentile(latencies, share) or 0.0 for share in (0.5, 0.99))
        edges = [len(latencies) * edge // STRETCHES for edge in range(STRETCHES + 1)]
        by_stretch = tuple(
            sum(latency <= target_s for latency in latencies[first:last]) / (last - first)
            for first, last in pairwise(edges)
            if first < last
        )
        return cls(played.attained(target_s), played.device_s / len(latencies), p50_s, p99_s, by_stretch)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell and its figures, by policy."""

    cell: Cell
    figures: dict[str, Figure]
    jobs: int = 0

    @property
    def best_fixed(self) -> str:
        """The fixed window with the most jobs in time, and of those the one that takes the least device time."""
        fixed = {name: figure for name, figure in self.figures.items() if name not in (OURS, GREEDY, ALONE, BEST)}
        return max(fixed, key=lambda name: (fixed[name].attained, -fixed[name].device_s))

    @property
    def behind(self) -> float:
        """By how many points fewer jobs are in time under our window than under the best fixed one."""
        return 100 * (self.figures[self.best_fixed].attained - self.figures[OURS].attained)

    @property
    def error(self) -> float:
        """The standard error of ``behind``, in points, from how it differs between stretches of jobs."""
        pairs = zip(self.figures[self.best_fixed].by_stretch, self.figures[OURS].by_stretch, strict=True)
        differences = [100 * (best - ours) for best, ours in pairs]
        return stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf

    @property
    def slower(self) -> float:
        """Our p99 over that of no batching."""
        return self.figures[OURS].p99_s / self.figures[ALONE].p99_s

    def saved(self, name: str = OURS) -> float:
        """The share of greedy's device time that a policy saves."""
        return 1 - self.figures[name].device_s / self.figures[GREEDY].device_s

    def line(self) -> dict[str, Any]:
        """For the JSON line."""
        about = asdict(self.cell)
        figures = {
            name: [
                round(figure.attained, 5),
                *(float(f"{v:.4g}") for v in (figure.device_s, figure.p50_s, figure.p99_s)),
            ]
            for name, figure in self.figures.items()
        }
        ours = {"jobs": self.jobs, "behind": round(self.behind, 3), "error": round(self.error, 3)}
        return {**about, "line": self.cell.line.name, **ours, "attained, device_s a job, p50_s, p99_s": figures}


def precise(cell: Cell, jobs: int, seed: int, error: float) -> Measured:
    """Play at least ``jobs`` jobs of a cell on a virtual device, until the standard error is at most ``error`` points
    or the bar is clear."""

    def seconds(first: int, last: int) -> float:
        return cell.line.seconds(last - first)

    while True:
        came = arrivals(cell, jobs, seed)
        one_by_one = ((name, play(came, policy, seconds)) for name, policy in ways(MOST, cell.target_s).items())
        measured = _measured(cell, jobs, one_by_one)
        enough = max(error, abs(measured.behind - BAR) / CLEAR)
        if measured.error <= enough or jobs >= MOST_JOBS:
            return _with_best(measured, seed)
        jobs = min(MOST_JOBS, math.ceil(MORE * jobs * (measured.error / enough) ** 2))


def measure(cell: Cell, jobs: int, seed: int, seconds: Seconds) -> Measured:
    """Play a cell on a real device, which all policies share in turns."""
    found = play_in_turns(arrivals(cell, jobs, seed), ways(MOST, cell.target_s), seconds)
    return _with_best(_measured(cell, jobs, found.items()), seed)


def _measured(cell: Cell, jobs: int, played: Iterable[tuple[str, Played]]) -> Measured:
    return Measured(cell, {name: Figure.of(each, cell.target_s) for name, each in played}, jobs)


def _with_best(measured: Measured, seed: int) -> Measured:
    cell = measured.cell
    last = arrivals(cell, measured.jobs, seed)[-FORESEEN:]
    best = Figure.of(clairvoyant(last, cell.line, cell.target_s), cell.target_s)
    return replace(measured, figures={**measured.figures, BEST: best})


def measure_all(
    grid: Sequence[Cell], jobs: int, seed: int, workers: int, say: Console, error: float = math.inf
) -> list[Measured]:
    """Measure cells on virtual clocks, in ``workers`` processes. ``error``: see ``precise``."""
    found: dict[int, Measured] = {}
    with ProcessPoolExecutor(workers) as pool, Progress(console=say) as progress:
        task = progress.add_task(f"{len(grid)} cells of {jobs:,} jobs or more", total=len(grid))
        running = {pool.submit(precise, cell, jobs, seed, error): n for n, cell in enumerate(grid)}
        for done in as_completed(running):
            found[running[done]] = done.result()
            progress.advance(task)
    return [found[n] for n in sorted(found)]
