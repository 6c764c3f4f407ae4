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
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar, show
from deploy.machine.server import Server

from .cost import Round, claims, throughput
from .gap import Gap, Model, measure, published_bound, workload
from .live import Live, fleet

TENANTS, WORKERS, ROOM = 64, 8, 8
LOAD = 640
"""Jobs of a round of the real worker."""


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


def _show_claims(console: Console, taken: dict[int, dict[str, list[float]]]) -> None:
    table = Table("tenants", "claim of 32, round trip, us", "server alone, us", "over none", "server's, over none")
    for each, one in taken.items():
        ratios = [f"{_over_none(taken, each, of):.2f}" for of in ("round_trip", "server")]
        medians = [f"{statistics.median(one[of]) * 1e6:.0f}" for of in ("round_trip", "server")]
        table.add_row(str(each or "none"), *medians, *ratios)
    console.print(table)


def _over_none(taken: dict[int, dict[str, list[float]]], tenants: int, of: str) -> float:
    """A claim with tenants over one without, the median of the rounds."""
    return statistics.median(one / none for none, one in zip(taken[0][of], taken[tenants][of], strict=True))


def _lost(console: Console, pairs: list[tuple[Round, Round]]) -> Bar:
    """What tenants cost a worker whose device is busy all the time.

    Jobs/s would have to be told to 1%, and the model's own time varies by several from round to round. Its batches are
    the same with tenants; what these add to a worker is work of its event loop.
    """

    def spread(of: str) -> str:
        ratios = [getattr(shared, of) / getattr(without, of) - 1 for without, shared in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return f"{middle:+.2%} ({low:+.2%} to {high:+.2%})"

    lost = statistics.median((shared.loop_s - without.loop_s) / without.cpu_s for without, shared in pairs)
    server, batch = (
        [statistics.median(getattr(one, of) for one in way) for way in zip(*pairs, strict=True)]
        for of in ("server_s", "batch")
    )
    seen = f"jobs/s {spread('jobs_per_s')}, the worker's CPU time {spread('cpu_s')}"
    console.print(
        f"A worker with {TENANTS} tenants beside one without, {len(pairs)} pairs of rounds, median, quartiles: {seen}. "
        f"Batches of {batch[0]:.1f} jobs without tenants, {batch[1]:.1f} with; of the server's CPU time, a job takes "
        f"{server[0] * 1e6:.0f} and {server[1] * 1e6:.0f} us. In the worker's event loop, tenants add {lost:+.2%} of a "
        "job's CPU time."
    )
    return Bar("throughput lost", round(lost, 4), 0.01, note=f"event loop's, of a job's CPU time; as seen: {seen}")


def main() -> int:
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
            _show_claims(console, taken)
            redis.flushdb()
            pairs = throughput(redis, server.url, Path(folder), LOAD, TENANTS, 3 if options.quick else 40)
        finally:
            server.stop()
    bound = published_bound(WORKERS, ROOM)
    growth = round(found["server, first in first out"].growth, 2)
    bars = [
        *(
            Bar(f"largest gap over the bound: {name}", round(gap.largest / bound, 4), 1.0)
            for name, gap in found.items()
            if "first in" not in name
        ),
        Bar("growth under first in first out", growth, 1.5, "higher"),
        _lost(console, pairs),
        *(
            Bar(f"claim with {each} tenants over none", round(_over_none(taken, each, "round_trip"), 3), 1.3)
            for each in taken
            if each
        ),
    ]
    result = {
        "benchmark": "fairness",
        "claims": taken,
        "rounds": [[asdict(one) for one in pair] for pair in pairs],
        "bars": [bar.line() for bar in bars],
    }
    show(bars)
    print(json.dumps(result))
    return 0 if all(bar.ok for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
