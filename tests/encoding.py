"""An encoder's engine, driven by hand."""

from __future__ import annotations

import time
from typing import Any

from producer.contract.fleet.fleet_schema import Model
from workers.engines.protocol import Engine, Outcome, Request
from workers.engines.registry import create

DEADLINE_S = 60.0


def loaded(engine: str, source: str) -> Engine:
    """An engine on a CPU, with four rows in a batch at most."""
    made = create(Model.model_validate({"engine": engine, "source": source, "max_concurrency": 4}), "cpu:0")
    made.load()
    return made


def ended(engine: Engine) -> list[Outcome]:
    """What one step made final."""
    return [report for report in engine.step(0.1) if isinstance(report, Outcome)]


def run(engine: Engine, *requests: Request) -> dict[str, Outcome]:
    """The outcomes of requests."""
    for request in requests:
        engine.submit(request)
    outcomes: dict[str, Outcome] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(outcomes) < len(requests):
        assert time.monotonic() < deadline, f"only {sorted(outcomes)} have an outcome"
        outcomes |= {outcome.id: outcome for outcome in ended(engine)}
    return outcomes


def told(outcome: Outcome) -> list[Any]:
    """The outputs of a request that was answered."""
    assert outcome.error is None
    assert outcome.outputs is not None
    return outcome.outputs
