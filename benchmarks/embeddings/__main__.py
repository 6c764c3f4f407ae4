"""Embeddings of mixed lengths: batches by length beside batches in order of arrival and none, and the vectors' truth.

python -m benchmarks.embeddings [--rounds 5] [--texts 256] [--seed 2]

A real model (all-MiniLM-L6-v2) on the CPU, one thread; about 2 minutes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from statistics import median

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.bars import Bar
from benchmarks.queue_tax.workload import texts

from .ways import ALONE, IN_ORDER, OURS, Engine, Run, by_hand

say = Console(stderr=True)


def measure(engine: Engine, inputs: list[str], rounds: int) -> dict[str, list[Run]]:
    """Each way once a round, every round beginning with another."""
    ways = (OURS, IN_ORDER, ALONE)
    found: dict[str, list[Run]] = {way: [] for way in ways}
    for way in ways:
        engine.run(way, inputs[:64])  # warm up
    for turn in track(range(rounds), f"{rounds} rounds of {len(inputs)} texts, three ways", console=say):
        for way in ways[turn % 3 :] + ways[: turn % 3]:
            found[way].append(engine.run(way, inputs))
    return found


def difference(engine: Engine, inputs: list[str]) -> float:
    """The largest difference, in any place of any vector, between the engine's in company and the model's alone."""
    engine.run(OURS, inputs)
    ours = torch.tensor([engine.vectors[str(number)] for number in range(len(inputs))])
    return float((ours - torch.tensor(by_hand(inputs))).abs().max())


def ratios(found: dict[str, list[Run]], way: str) -> list[float]:
    """Our throughput over that of a way, round by round."""
    return [theirs.seconds / ours.seconds for ours, theirs in zip(found[OURS], found[way], strict=True)]


def table(found: dict[str, list[Run]], count: int) -> Table:
    """For people."""
    shown = Table("batches", "texts/s, median", "min", "max", "CPU ms a text, median", "ours over it")
    for way, runs in found.items():
        rates = [count / run.seconds for run in runs]
        cpu_ms = 1000 * median(run.cpu_s for run in runs) / count
        rate = [f"{value:.1f}" for value in (median(rates), min(rates), max(rates))]
        shown.add_row(way, *rate, f"{cpu_ms:.2f}", f"{median(ratios(found, way)):.2f}x")
    return shown


def main() -> int:
    """Measure; a table for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--seed", type=int, default=2, help="of the texts")
    options = parser.parse_args()
    torch.set_num_threads(1)  # beside others, more threads are slower
    engine = Engine()
    engine.load()
    inputs = texts(options.texts, seed=options.seed)
    found = measure(engine, inputs, options.rounds)
    apart = difference(engine, inputs)
    engine.close()
    in_order, alone = (ratios(found, way) for way in (IN_ORDER, ALONE))
    bars = [
        Bar("throughput over batches in order of arrival, median", round(median(in_order), 3), 1.5, "higher"),
        Bar("throughput over no batches, worst round", round(min(alone), 3), 1.0, "higher"),
        Bar("largest difference to the model's own single output", apart, 1e-5),
    ]
    Console().print(table(found, len(inputs)))
    runs = {way: [asdict(run) for run in each] for way, each in found.items()}
    print(json.dumps({"benchmark": "embeddings", "runs": runs, "bars": [bar.line() for bar in bars]}))
    return 0 if all(bar.ok for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
