"""What is measured of generation, on any model and device: three ways to batch, and what streaming costs."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar
from producer.contract.fleet.fleet_schema import Model

from .streaming import worker
from .ways import NotingEngine, Peer, ours, timed
from .workload import Ask, Run, median_rate

ENGINE, BY_HAND, STATIC = "our engine", "continuous batching by hand", "static batches of 16"
STATIC_ROWS = 16
STREAMED, SILENT = "every job streamed", "none"

say = Console(stderr=True).print


def in_turns(ways: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Run each way once a round, every round in another order."""
    found: dict[str, list[Run]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run = ways[name]()
            found[name].append(run)
            say(f"  {name}: {run.tokens:,} tokens in {run.seconds:.1f} s, {run.rate:.1f}/s")
    return found


def throughput(
    engine: NotingEngine, peer: Peer, model: Model, asks: Sequence[Ask], rounds: int
) -> dict[str, list[Run]]:
    """The same requests three ways, in turns."""
    places = model.max_concurrency
    say(f"throughput: {len(asks)} requests, {places} places")
    with peer.continuous(model) as by_hand:
        ways: dict[str, Callable[[Sequence[Ask]], int]] = {
            ENGINE: lambda asks: ours(engine, asks),
            BY_HAND: by_hand,
            STATIC: lambda asks: peer.static(asks, STATIC_ROWS),
        }
        for way in ways.values():
            way(asks[:4])  # warm up
        return in_turns({name: partial(timed, partial(way, asks)) for name, way in ways.items()}, rounds)


def streaming(model: Model, device: str, asks: Sequence[Ask], rounds: int) -> dict[str, list[Run]]:
    """The same jobs through one worker, streamed and not, in turns."""
    places = model.max_concurrency
    say(f"streaming: {len(asks)} jobs through one worker with {places} places")
    with (
        tempfile.TemporaryDirectory() as folder,
        worker(Path(folder), places, source=model.source, device=device, memory_gb=model.memory_gb) as fleet,
    ):
        fleet.run(asks[:4], stream=True)  # warm up
        ways = {
            STREAMED: lambda: fleet.run(asks, stream=True),
            SILENT: lambda: fleet.run(asks, stream=False),
        }
        found = in_turns(ways, rounds)
        say(f"  {fleet.pieces:,} pieces were read")
    return found


def table(found: Mapping[str, Sequence[Run]]) -> Table:
    """For people."""
    shown = Table("way", "tokens/s, median", "min", "max", "CPU ms a token, median")
    for name, runs in found.items():
        rates = [run.rate for run in runs]
        cpu_ms = statistics.median(1000 * run.cpu_s / run.tokens for run in runs)
        shown.add_row(name, *(f"{rate:.1f}" for rate in (median_rate(runs), min(rates), max(rates))), f"{cpu_ms:.2f}")
    return shown


def throughput_bars(found: Mapping[str, Sequence[Run]]) -> list[Bar]:
    """Ratios of medians."""
    rates = {name: median_rate(runs) for name, runs in found.items()}
    return [
        Bar("engine over static batches of 16", round(rates[ENGINE] / rates[STATIC], 3), 1.5, "higher"),
        Bar("engine over continuous batching by hand", round(rates[ENGINE] / rates[BY_HAND], 3), 0.95, "higher"),
    ]


def streaming_bar(found: Mapping[str, Sequence[Run]]) -> Bar:
    """The median, over the rounds, of what streaming takes."""
    pairs = zip(found[STREAMED], found[SILENT], strict=True)
    loss = statistics.median(1 - streamed.rate / silent.rate for streamed, silent in pairs)
    return Bar("throughput lost by streaming every job, in %", round(100 * loss, 2), 2.0, "lower")
