"""What a batch costs: ``seconds = per_row * rows + fixed``, learned from the batches that ran.

Batches are binned by their size, in powers of two, and each bin keeps its latest few. A bin counts by its median, so
that a warm-up or a stall, however long, moves nothing, and what is long ago is forgotten. The line is the least
squares of the relative errors over the bins' medians, and neither of its parts is ever negative.

In rows, not tokens: the cost is asked for before jobs are claimed, when only their number is known.
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
"""Batches over which the spread is taken."""
SLOW = 0.05
"""The share of batches that take more than the spread times what is expected."""
SPREAD_UNKNOWN = 1.5
SPREAD_AFTER = 20
"""Batches before the spread is measured and not supposed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a batch of jobs takes: ``per_job * jobs + fixed``; one in twenty (``SLOW``) takes more than
    ``spread`` times that. All zero when nothing is known."""

    per_job: float = 0.0
    fixed: float = 0.0
    spread: float = SPREAD_UNKNOWN

    def expected(self, jobs: float) -> float:
        """Seconds that a batch usually takes."""
        return self.per_job * jobs + self.fixed

    def safe(self, jobs: float) -> float:
        """Seconds that a batch takes at most, nearly always."""
        return self.expected(jobs) * self.spread


class LearnedCost:
    """Learns the cost of a model's batches on a kind of device.

    ``fields`` is all that it knows, as a flat mapping of floats, and what another one starts with: what a new
    worker is told counts in each bin as one batch, so that its own soon outweigh it.
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
        """A batch ran: how many jobs had a part in it, how many inputs, how long it took.

        What cannot be is left out: no rows, no time.
        """
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
        """What a batch of jobs costs, as far as is known."""
        per_row, fixed = self._line
        return Cost(per_row * self._rows_per_job, fixed, self._spread)

    @property
    def rows_per_job(self) -> float:
        """Inputs that a job brings to a batch, of late."""
        return self._rows_per_job

    @property
    def fields(self) -> dict[str, float]:
        """All that is known, for another one to start with."""
        known = {"rows_per_job": self._rows_per_job, "spread": self._spread}
        for place, rows, seconds, _ in self._medians():
            known |= {f"rows.{place}": float(rows), f"seconds.{place}": seconds}
        return known

    def _bin(self, rows: int) -> deque[tuple[int, float]]:
        return self._bins.setdefault(max(1, rows).bit_length(), deque(maxlen=LATEST))

    def _medians(self) -> list[tuple[int, int, float, int]]:
        """Of each bin: its place, its rows, its seconds, how many batches it holds. The lower median, so that the
        worse of two does not count."""
        return [
            (place, median_low(n for n, _ in bin_), median_low(s for _, s in bin_), len(bin_))
            for place, bin_ in self._bins.items()
        ]


def _fit(points: Iterable[tuple[int, int, float, int]]) -> tuple[float, float]:
    """Seconds per row and fixed seconds: least squares of the relative errors, neither negative.

    One size alone does not tell one from the other: then nothing is fixed, and no company promises a saving.
    """
    points = list(points)
    if not points:
        return 0.0, 0.0
    # Divided by its seconds, each point asks that per_row * u + fixed * v be 1.
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
