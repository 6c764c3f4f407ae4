"""How fast a backend can submit: our one pipelined write beside Celery's ``apply_async``, in turns in one run.

    python -m benchmarks.submit [--jobs 5000] [--rounds 5]

Both push the same jobs to the same kind of queue on the same server; nothing consumes them. Each round runs both, in
alternating order, and the ratio is taken round by round, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from rich.console import Console
from rich.table import Table

from deploy.server import Server
from producer import Client, Settings
from producer.job import TASK

BAR = 5.0
"""``submit_many`` over ``apply_async``, in jobs per second."""


def infer(**_: object) -> None:
    """What Celery's side sends; nothing runs it."""


def rate(jobs: int, submit: Callable[[], object]) -> float:
    """Jobs per second of one submission of all of them."""
    begun = time.perf_counter()
    submit()
    return jobs / (time.perf_counter() - begun)


def measure(jobs: int, rounds: int) -> dict[str, list[float]]:
    """Rates of each way in each round, in jobs per second."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server")
        server.start()
        settings = Settings(redis={"url": server.url}, models={"m": {"engine": "echo"}})
        found: dict[str, list[float]] = {"apply_async": [], "submit_many": [], "submit": []}
        with Client(settings) as client, Celery(broker=server.url, set_as_current=False) as app:
            task = app.task(name=TASK)(infer)
            fields = [{"input": f"prompt number {n}"} for n in range(jobs)]
            ways: dict[str, Callable[[], object]] = {
                "apply_async": lambda: [task.apply_async(kwargs=each, queue="m.batch") for each in fields],
                "submit_many": lambda: client.submit_many(client.job("m", each["input"]) for each in fields),
                "submit": lambda: [client.submit("m", each["input"]) for each in fields],
            }
            for warm_up in ways.values():
                warm_up()
            for turn in range(rounds):
                for name in list(ways)[:: 1 if turn % 2 else -1]:
                    found[name].append(rate(jobs, ways[name]))
        server.stop()
        return found


def main() -> None:
    """Measure, and print a table for people and a line for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found = measure(options.jobs, options.rounds)
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates, found["apply_async"], strict=True))
        for name, rates in found.items()
    }
    table = Table("way", "jobs/s, median", "min", "max", "over apply_async, median of rounds")
    for name, rates in found.items():
        table.add_row(
            name,
            *(f"{value:,.0f}" for value in (statistics.median(rates), min(rates), max(rates))),
            f"{ratios[name]:.1f}x",
        )
    Console().print(table)
    value = round(ratios["submit_many"], 2)
    bar = {"name": "submit_many over apply_async", "value": value, "bar": BAR, "better": "higher", "ok": value >= BAR}
    print(json.dumps({"benchmark": "submit", "rates": found, "bars": [bar]}))


if __name__ == "__main__":
    main()
