"""The figures of a service, learned from what it did: those that it was simulated with come back."""

import random

import pytest

from autoscaler.sizing.policy_registry import BACKLOG
from benchmarks.simulator.learn import Served, service
from producer.contract.fleet.fleet_schema import DeviceType, Model, Tier
from producer.contract.fleet.settings import Settings
from simulator.hardware import Hardware
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign


def test_the_figures_that_requests_were_served_with_are_learned_from_their_times() -> None:
    true = ServiceModel(0.03, 0.01, 0.005)
    rng = random.Random(1)
    at, now = [], 10.0
    for _ in range(200):
        now += rng.expovariate(1.5)
        at.append(now)
    trace = Trace(at, [rng.randint(4, 9) for _ in at], [rng.randint(4, 32) for _ in at])
    model = Model(engine="echo", tiers=("fast",), max_concurrency=8, min_replicas=1)
    settings = Settings(tiers={"fast": Tier(target_wait_s=1, weight=1)}, models={"m": model})
    hardware = Hardware((DeviceType(type="cpu", count=1),), {"m": true})
    done = Simulation(settings, hardware, assign(trace, settings), BACKLOG).run()
    found = service(
        [
            Served(*one)
            for one in zip(at, done.started, done.ended, trace.input_tokens, trace.output_tokens, strict=True)
        ]
    )
    assert found.step_s == pytest.approx(true.step_s, rel=0.1)
    assert found.sequence_s == pytest.approx(true.sequence_s, rel=0.1)
    assert found.prompt_token_s == pytest.approx(true.prompt_token_s, rel=0.2)
