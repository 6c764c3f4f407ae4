"""``python -m benchmarks.forecast``: how well arrivals are forecast, ours beside statsmodels'. There is no bar.

Requests of the public traces are counted in ticks of ten seconds, as the autoscaler does it. At each look, from five
minutes on, everybody says how many will come in the next two minutes: twice the load time of a minute. What came is
held against it. Prints a table, and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from autoscaler.sizing.forecast import TICK_S, WAYS, Forecast
from benchmarks.simulator import azure
from simulator.traces import readers

AHEAD, FIRST, MEMORY = 12, 30, 360
"""Ticks: how far ahead it is looked, when one begins to, how far back the library looks."""
PEER = Path(__file__).parents[2] / ".venv-peers/statsmodels/bin/python"
SERVEGEN_S, SERVEGEN_EVERY = 4 * 3600.0, 6


@dataclass(frozen=True, slots=True)
class Case:
    """A trace: the number of arrivals in each tick, and the ticks at which a forecast is made."""

    name: str
    counts: list[int]
    looks: list[int]

    def came(self, at: int) -> float:
        """Requests per second in the ticks after a look."""
        return sum(self.counts[at : at + AHEAD]) / (AHEAD * TICK_S)


@dataclass(frozen=True, slots=True)
class Said:
    """What one of them said at each look, in requests per second, and milliseconds of processor time for each."""

    who: str
    per_s: list[float]
    ms: float

    def wrong(self, case: Case) -> float:
        """Mean absolute error."""
        return sum(abs(said - case.came(at)) for said, at in zip(self.per_s, case.looks, strict=True)) / len(self.per_s)


def main() -> int:
    """Forecast each trace."""
    options = _options()
    if not PEER.exists():
        print(f"no {PEER}: make bench-setup installs it", file=sys.stderr)
        return 2
    table = Table("trace", "who", "error, requests/s", "times that of as now", "ms a look")
    lines = []
    for case in _cases(options):
        print(f"  {case.name}: {sum(case.counts):,} requests, {len(case.looks)} looks", flush=True)
        now, *others = _ours(case)
        for one in (now, *others, _statsmodels(case)):
            ratio = one.wrong(case) / now.wrong(case)
            table.add_row(case.name, one.who, f"{one.wrong(case):.3f}", f"{ratio:.3f}", f"{one.ms:.2f}")
            lines.append({"trace": case.name, "who": one.who, "times_now": round(ratio, 3), "ms": round(one.ms, 3)})
    Console(width=110).print(table)
    print(json.dumps({"benchmark": "forecast", "seed": options.seed, "errors": lines, "bars": []}), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the requests of ServeGen's clients")
    parser.add_argument("--quick", action="store_true", help="an hour of ServeGen instead of four")
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"), help="default: %(default)s")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = [_case(name, azure.find(options.traces, name), options.seed, None, 1) for name in azure.TRACES]
    clients = next(iter(sorted(options.traces.glob("servegen*.tgz"))), None)
    if clients is not None:
        lasts_s = SERVEGEN_S / 4 if options.quick else SERVEGEN_S
        cases.append(_case("servegen", clients, options.seed, lasts_s, SERVEGEN_EVERY))
    return cases


def _case(name: str, path: Path, seed: int, lasts_s: float | None, every: int) -> Case:
    trace = readers.read(path, seed, lasts_s)
    counts = [0] * (int(trace.lasts_s / TICK_S) + 1)
    for at in trace.at:
        counts[int(at / TICK_S)] += 1
    counts.pop()  # the last is not whole
    return Case(name, counts, [*range(FIRST, len(counts) - AHEAD + 1, every)])


def _ours(case: Case) -> list[Said]:
    """As now, each other way, and what is believed of them."""
    looks, horizon_s = set(case.looks), AHEAD * TICK_S
    ways: list[list[float]] = [[] for _ in WAYS]
    believed: list[float] = []
    forecast, arrived = Forecast(0.0, 0), 0
    began = time.process_time()
    for tick, count in enumerate(case.counts, 1):
        arrived += count
        forecast = forecast.after(tick * TICK_S, arrived, horizon_s)
        if tick in looks:
            believed.append(forecast.outlook(horizon_s).per_s)
            for way, said in zip(ways, forecast.ways(AHEAD, horizon_s), strict=True):
                way.append(said)
    ms = (time.process_time() - began) / len(case.counts) * 1000
    return [*(Said(f"as {name}", way, ms) for name, way in zip(WAYS, ways, strict=True)), Said("ours", believed, ms)]


def _statsmodels(case: Case) -> Said:
    asked = json.dumps({"counts": case.counts, "at": case.looks, "ahead": AHEAD, "memory": MEMORY})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(
        [PEER, Path(__file__).with_name("ets.py")], input=asked, capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    found = json.loads(told.stdout)
    return Said("statsmodels", [each / TICK_S for each in found["said"]], found["cpu_s"] / len(case.looks) * 1000)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
