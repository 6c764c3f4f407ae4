"""Fairness among tenants: how far apart their service gets, and what that costs.

    python -m benchmarks.fairness [--quick] [--seed 1]

64 tenants, every eighth of which sends eight times as much as the others, each with jobs of its own sizes; 8 workers
that end and take jobs in any order. The service of all tenants that have jobs waiting all the time is compared after
every claim: on the pure model, on the queues of a real server, and on the same queues without tenants (first in, first
out). Then what a claim of 32 jobs costs with tenants, and what a real worker with a real model loses.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar
from deploy.server import Server

from .cost import claims, median_ratio, throughput
from .gap import Gap, Model, measure, published_bound, workload
from .live import Live, fleet

TENANTS, WORKERS, ROOM = 64, 8, 8


def gaps(redis: Redis, url: str, seed: int, each: int) -> dict[str, Gap]:
    """The gap of every way to order the same jobs."""
    jobs = workload(random.Random(seed), TENANTS, each)
    weights = {f"t{tenant}": (1.0, 2.0, 4.0)[tenant % 3] for tenant in range(TENANTS)}
    sources: dict[str, tuple[Any, dict[str, float]]] = {
        "model": (Model(jobs, {}), {}),
        "model, weights 1 2 4": (Model(jobs, weights), weights),
    }
    found = {}
    for name, (source, of) in sources.items():
        found[name] = measure(source, jobs, of, WORKERS, ROOM, random.Random(seed))
    for name, of, shared in (
        ("server", {}, True),
        ("server, weights 1 2 4", weights, True),
        ("server, first in first out", {}, False),
    ):
        source = Live(redis, fleet(url, of), jobs, shared=shared)
        found[name] = measure(source, jobs, of, WORKERS, ROOM, random.Random(seed))
    return found


def _show_gaps(console: Console, found: dict[str, Gap]) -> None:
    table = Table("order", "largest gap, tokens", "of the bound", "growth, middle to end")
    for name, gap in found.items():
        share = gap.largest / published_bound(WORKERS, ROOM)
        table.add_row(name, f"{gap.largest:,.0f}", f"{share:.3f}", f"{gap.growth:.2f}")
    console.print(table)
    bound, of_one = published_bound(WORKERS, ROOM), published_bound(1, ROOM)
    console.print(
        f"Bound (theorem 4.4): 2 max(1 x 512, 2 x {WORKERS} x {ROOM} x 256) = {bound:,.0f}. The batch is what all "
        f"workers run together, for they take from one queue; of one worker's alone it would be {of_one:,.0f}."
    )


def _over_none(taken: dict[int, dict[str, list[float]]], tenants: int, of: str) -> float:
    """A claim with tenants over one without, the median of the rounds."""
    return median_ratio(list(zip(taken[0][of], taken[tenants][of], strict=True)))


def main() -> None:
    """Measure, and print tables for people and a line for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server")
        server.start()
        try:
            redis = Redis.from_url(server.url)
            found = gaps(redis, server.url, options.seed, 30 if options.quick else 120)
            _show_gaps(console, found)
            taken = claims(redis, server.url, (1, 8, 64), 10 if options.quick else 60)
            redis.flushdb()
            pairs = throughput(
                redis, server.url, Path(folder), 400 if options.quick else 1500, TENANTS, 3 if options.quick else 15
            )
        finally:
            server.stop()
    medians = {each: {of: statistics.median(times) for of, times in one.items()} for each, one in taken.items()}
    table = Table("tenants", "claim of 32, round trip, us", "server alone, us", "over none", "server's, over none")
    for each, one in medians.items():
        ratios = [f"{_over_none(taken, each, of):.2f}" for of in ("round_trip", "server")]
        table.add_row(str(each or "none"), *(f"{one[of] * 1e6:.0f}" for of in ("round_trip", "server")), *ratios)
    console.print(table)
    lost = 1 - median_ratio([(without.jobs_per_s, shared.jobs_per_s) for without, shared in pairs])
    cost = median_ratio([(without.cpu_s, shared.cpu_s) for without, shared in pairs]) - 1
    spread = statistics.quantiles((without.jobs_per_s for without, _ in pairs), n=4)
    console.print(
        f"A worker with {TENANTS} tenants, median of {len(pairs)} pairs: {-lost:+.2%} jobs/s (without tenants, "
        f"half of the rounds were between {spread[0]:.0f} and {spread[2]:.0f}), {cost:+.2%} CPU time of worker and "
        "server for each job"
    )
    bound = published_bound(WORKERS, ROOM)
    bars = [
        Bar(f"largest gap over the bound: {name}", round(gap.largest / bound, 4), 1.0)
        for name, gap in found.items()
        if "first in" not in name
    ]
    bars.append(
        Bar("growth under first in first out", round(found["server, first in first out"].growth, 2), 1.5, "higher")
    )
    # Wall time is the machine's as much as ours; with the device busy all the time, CPU time is what jobs compete for.
    note = f"CPU time for each job, of a real worker with a real model and its server; by the wall clock {lost:+.4f}"
    bars.append(Bar("throughput lost", round(cost, 4), 0.01, note=note))
    bars += [
        Bar(f"claim with {each} tenants over none", round(_over_none(taken, each, "round_trip"), 3), 1.3)
        for each in medians
        if each
    ]
    result = {
        "benchmark": "fairness",
        "claims": medians,
        "rounds": [[asdict(one) for one in pair] for pair in pairs],
        "bars": [bar.line() for bar in bars],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
