"""The cost of a batch: ``seconds = per_row * rows + fixed``, learned from the batches that ran.

Batches are binned by size in powers of two, and each bin keeps its latest few. A bin counts with its median, so that a
warm-up or a stall has no effect and old batches are forgotten. The line is a least-squares fit of the relative errors
over the medians; neither part is negative.

The cost is in rows, not tokens: it is needed before jobs are claimed, when only their number is known.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LATEST = 15
"""Batches that a bin keeps."""
RATIOS = 64
"""Batches from which the spread is measured."""
SLOW = 0.05
"""Share of batches that take longer than the spread times the expected time."""
SPREAD_UNKNOWN = 1.5
SPREAD_AFTER = 20
"""Batches after which the spread is measured rather than assumed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The seconds that a batch of jobs takes: ``per_job * jobs + fixed``; the share ``SLOW`` of batches takes more than
    ``spread`` times that. Zero before anything was measured."""

    per_job: float = 0.0
    fixed: float = 0.0
    spread: float = SPREAD_UNKNOWN

    def expected(self, jobs: float) -> float:
        """Expected seconds of a batch."""
        return self.per_job * jobs + self.fixed

    def safe(self, jobs: float) -> float:
        """Seconds that all but the slowest batches (``SLOW``) take at most."""
        return self.expected(jobs) * self.spread


class LearnedCost:
    """Learns the cost of a model's batches on one device type.

    ``fields`` is its state as a flat mapping of floats, with which another worker can start. There it counts as one
    batch per bin, so that the worker's own batches soon outweigh it.
    """

    def __init__(self, fields: Mapping[str, float] | None = None) -> None:
        told = {name: value for name, value in (fields or {}).items() if 0 < value < math.inf}
        self._bins: dict[int, deque[tuple[int, float]]] = {}
        for name, rows in told.items():
            place = name.removeprefix("rows.")
            if place.isdecimal() and (seconds := told.get(f"seconds.{place}")):
                self._bin(round(rows)).append((round(rows), seconds))
        self._rows_per_job = max(1.0, told.get("rows_per_job", 1.0))
        self._spread = max(1.0, told.get("spread", SPREAD_UNKNOWN))
        self._ratios: deque[float] = deque(maxlen=RATIOS)
        self._line = _fit(self._medians())

    def learn(self, requests: int, rows: int, seconds: float) -> None:
        """Learn from a batch: its jobs, its rows, its seconds. Impossible values (no rows, no time) are ignored."""
        if requests < 1 or rows < 1 or not 0 < seconds < math.inf:
            return
        per_row, fixed = self._line
        if (expected := per_row * rows + fixed) > 0:
            self._ratios.append(seconds / expected)
            if len(self._ratios) >= SPREAD_AFTER:
                self._spread = max(1.0, sorted(self._ratios)[int((1 - SLOW) * len(self._ratios))])
        self._rows_per_job += (max(1.0, rows / requests) - self._rows_per_job) / LATEST
        self._bin(rows).append((rows, seconds))
        self._line = _fit(self._medians())

    @property
    def cost(self) -> Cost:
        """The cost of a batch, as learned so far."""
        per_row, fixed = self._line
        return Cost(per_row * self._rows_per_job, fixed, self._spread)

    @property
    def rows_per_job(self) -> float:
        """Recent mean of rows per job in a batch."""
        return self._rows_per_job

    @property
    def fields(self) -> dict[str, float]:
        """The state, for another worker to start with."""
        known = {"rows_per_job": self._rows_per_job, "spread": self._spread}
        for place, rows, seconds, _ in self._medians():
            known |= {f"rows.{place}": float(rows), f"seconds.{place}": seconds}
        return known

    def _bin(self, rows: int) -> deque[tuple[int, float]]:
        return self._bins.setdefault(max(1, rows).bit_length(), deque(maxlen=LATEST))

    def _medians(self) -> list[tuple[int, int, float, int]]:
        """For each bin: its index, median rows, median seconds, number of batches. The lower median, so that the slower
        of two does not count."""
        return [
            (place, median_low(n for n, _ in bin_), median_low(s for _, s in bin_), len(bin_))
            for place, bin_ in self._bins.items()
        ]


def _fit(points: Iterable[tuple[int, int, float, int]]) -> tuple[float, float]:
    """Seconds per row and fixed seconds by least squares of the relative errors, neither negative.

    With a single batch size the slope cannot be identified: the fixed part is then 0, so that holding promises nothing.
    """
    points = list(points)
    if not points:
        return 0.0, 0.0
    # Divided by its seconds, each point requires per_row * u + fixed * v = 1.
    scaled = [(rows / seconds, 1 / seconds, weight) for _, rows, seconds, weight in points]
    uu = sum(w * u * u for u, _, w in scaled)
    uv = sum(w * u * v for u, v, w in scaled)
    vv = sum(w * v * v for _, v, w in scaled)
    u_, v_ = sum(w * u for u, _, w in scaled), sum(w * v for _, v, w in scaled)
    determinant = uu * vv - uv * uv
    if len(points) == 1 or determinant <= 1e-12 * uu * vv:
        return u_ / uu, 0.0
    per_row, fixed = (u_ * vv - v_ * uv) / determinant, (v_ * uu - u_ * uv) / determinant
    if fixed < 0:
        return u_ / uu, 0.0
    if per_row < 0:
        return 0.0, v_ / vv
    return per_row, fixed
