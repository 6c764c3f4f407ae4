"""One cell: every policy on the same arrivals, and what each came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.bars import percentile

from .clairvoyant import clairvoyant
from .devices import Virtual
from .grid import MOST, Cell, arrivals
from .play import Device, Played, play
from .policies import ALONE, GREEDY, OURS, ways

BEST = "clairvoyant"
FORESEEN = 2000
"""Jobs, the last of a cell, over which the clairvoyant best is searched."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A policy in a cell: the share of jobs in time, the device's seconds for each job, and latencies in seconds."""

    attained: float
    device_s: float
    p50_s: float = 0.0
    p99_s: float = 0.0

    @classmethod
    def of(cls, played: Played, target_s: float) -> Figure:
        """What a run came to."""
        latencies = played.latencies
        p50_s, p99_s = (percentile(latencies, share) or 0.0 for share in (0.5, 0.99))
        return cls(played.attained(target_s), played.device_s / len(latencies), p50_s, p99_s)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell and its figures, by policy."""

    cell: Cell
    figures: dict[str, Figure]

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
        return {**about, "line": self.cell.line.name, "attained, device_s a job, p50_s, p99_s": figures}


def measure(cell: Cell, jobs: int, seed: int, device: Callable[[], Device] | None = None) -> Measured:
    """Play a cell; on a virtual device, unless there is a real one to begin anew for each policy."""
    came = arrivals(cell, jobs, seed)
    figures = {}
    for name, policy in ways(MOST, cell.target_s).items():
        played = play(came, policy, device() if device else Virtual(cell.line))
        figures[name] = Figure.of(played, cell.target_s)
    last = came[-FORESEEN:]
    figures[BEST] = Figure.of(clairvoyant(last, cell.line, cell.target_s), cell.target_s)
    return Measured(cell, figures)


def measure_all(grid: Sequence[Cell], jobs: int, seed: int, workers: int, say: Console) -> list[Measured]:
    """Cells on virtual clocks, in so many processes."""
    found: dict[int, Measured] = {}
    with ProcessPoolExecutor(workers) as pool, Progress(console=say) as progress:
        task = progress.add_task(f"{len(grid)} cells of {jobs:,} jobs", total=len(grid))

        running = {pool.submit(measure, cell, jobs, seed): n for n, cell in enumerate(grid)}
        for done in as_completed(running):
            found[running[done]] = done.result()
            progress.advance(task)
    return [found[n] for n in sorted(found)]
