"""The grid: what a batch costs, how much is asked for, how unevenly, and by when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, product

MOST = 32
"""Jobs in a full batch."""


@dataclass(frozen=True, slots=True)
class Line:
    """A batch of n jobs takes ``per_job * n + fixed`` seconds."""

    name: str
    per_job: float
    fixed: float

    def seconds(self, jobs: float) -> float:
        """What a batch takes."""
        return self.per_job * jobs + self.fixed

    @property
    def full_per_s(self) -> float:
        """Jobs per second in full batches: load 1."""
        return MOST / self.seconds(MOST)

    @property
    def single_per_s(self) -> float:
        """Jobs per second without batching."""
        return 1 / self.seconds(1)


LINES = (
    Line("gpu", 0.0001, 0.004),
    Line("cpu", 0.004, 0.008),
    Line("heavy", 0.001, 0.020),
)
LOADS = (0.1, 0.25, 0.45, 0.7, 0.9)
LOW = 0.05
"""Low load: this share of what the device does without batching."""
UNEVENNESS = (1.0, 2.0, 4.0)
"""Standard deviation of the gaps between arrivals over their mean: 1 is Poisson."""
TARGETS = (0.75, 1.5, 3.0, 10.0)
"""Deadlines, over the time of a full batch."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. ``load`` is the rate over what full batches do; ``low`` marks the cells at low load."""

    line: Line
    load: float
    uneven: float
    target_s: float
    low: bool = False

    @property
    def per_s(self) -> float:
        """Arrivals per second."""
        return self.load * self.line.full_per_s

    @property
    def key(self) -> str:
        """The cell in words; seeds its arrivals, which do not depend on the target."""
        return f"{self.line.name} {self.load:.4f} {self.uneven}"


def cells(lines: tuple[Line, ...] = LINES) -> Iterator[Cell]:
    """All cells."""
    for line in lines:
        low = LOW * line.single_per_s / line.full_per_s
        for load, uneven, target in product((low, *LOADS), UNEVENNESS, TARGETS):
            yield Cell(line, load, uneven, target * line.seconds(MOST), low=load == low)


def few(line: Line) -> Iterator[Cell]:
    """A few cells of a line, for a device that is real."""
    low = LOW * line.single_per_s / line.full_per_s
    for load, uneven, target in (
        (low, 1.0, 3.0),
        (0.25, 1.0, 10.0),
        (0.25, 4.0, 10.0),
        (0.45, 1.0, 3.0),
        (0.7, 2.0, 10.0),
    ):
        yield Cell(line, load, uneven, target * line.seconds(MOST), low=load == low)


def arrivals(cell: Cell, jobs: int, seed: int) -> list[float]:
    """When jobs arrive, in seconds: gaps from a gamma distribution, seeded."""
    chance = random.Random(f"{seed} {cell.key}")
    shape = 1 / cell.uneven**2
    return list(accumulate(chance.gammavariate(shape, 1 / (shape * cell.per_s)) for _ in range(jobs)))
