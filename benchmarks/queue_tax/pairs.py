"""Runs in pairs, and what they say together. Pure: a machine that slows down slows both of a pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Way = Literal["fleet", "engine"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a workload, ``units`` being the tokens or inputs that it made."""

    seconds: float
    jobs: int
    units: int
    batch_size: float
    """Mean, over the jobs, of how many inputs shared the device with each."""
    cpu_s: float
    """Processor time that the process with the engine took."""

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds


@dataclass(frozen=True, slots=True)
class Pair:
    """The same work, both ways, one right after the other."""

    fleet: Run
    engine: Run

    @property
    def ratio(self) -> float:
        """Throughput of the fleet over the engine's."""
        return self.fleet.rate / self.engine.rate

    @property
    def cpu_us_per_job(self) -> float:
        """What the fleet's worker took more, in microseconds of processor time for each job."""
        return 1e6 * (self.fleet.cpu_s - self.engine.cpu_s) / self.fleet.jobs


def order(rounds: int) -> list[tuple[Way, Way]]:
    """The order in each round: ABBA, so that a machine that drifts favours neither."""
    return [("fleet", "engine") if turn % 2 == 0 else ("engine", "fleet") for turn in range(rounds)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles; of fewer than two values, that value."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What a workload's pairs say: the median ratio with its quartiles, and what lies behind it."""
    low, middle, high = spread([pair.ratio for pair in pairs])
    return {
        "ratio": round(middle, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "cpu_us_per_job": round(statistics.median(pair.cpu_us_per_job for pair in pairs)),
        "fleet_rate": round(statistics.median(pair.fleet.rate for pair in pairs), 2),
        "engine_rate": round(statistics.median(pair.engine.rate for pair in pairs), 2),
        "fleet_batch": round(statistics.median(pair.fleet.batch_size for pair in pairs), 2),
        "engine_batch": round(statistics.median(pair.engine.batch_size for pair in pairs), 2),
        "pairs": [asdict(pair) for pair in pairs],
    }
