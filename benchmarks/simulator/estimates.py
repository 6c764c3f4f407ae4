"""How often the estimates of queued requests came true.

Each trace is cut in two. In the first part the fleet learns the speed of its workers and the errors of its estimates.
The second is held back: each request that has to wait there gets an estimate when it is queued, which is compared with
the outcome. Three tiers with equal shares, 16 devices, the live policy, 60 s to load. Shares are of all estimates over
all held-back traces.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path

from autoscaler.sizing.policy_registry import named
from benchmarks.bars import Bar
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from producer.estimates.wait_time import Interval, Why
from simulator.hardware import Hardware
from simulator.results.estimates import RecordedEstimate, SimulatedEstimates
from simulator.results.outcome import RunOutcome
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces import readers
from simulator.traces.trace import Trace, assign, faster, since, until

SETTINGS = Settings(models={"m": Model(engine="generate", source="m", max_replicas=16)}, scaling=Scaling(idle_s=60))
POLICY = named(SETTINGS.scaling.policy)
"""The live fleet's default."""
HARDWARE = Hardware(
    (DeviceType(type="h100", count=16),), {"m": ServiceModel(0.02, 0.0005, 0.0002, load_s=60, load_sigma=0.2)}
)
TRACES = {
    "conversation": ("azure_2023_conv_first30min.csv.gz", 1.0),
    "conversation, 3 times as fast": ("azure_2023_conv_first30min.csv.gz", 3.0),
    "code": ("azure_2023_code_first30min.csv.gz", 1.0),
    "ServeGen, at 0.3 of its rate": ("servegen_small_models_with_lengths.tgz", 0.3),
}
SERVEGEN_S = 1200.0


def run(options: argparse.Namespace) -> list[Bar]:
    """Every trace; with ``quick`` the first alone."""
    starts, ends, reasons, count = 0, 0, Counter[Why](), 0
    for name, (file, times) in [*TRACES.items()][: 1 if options.quick else None]:
        told, outcome = _held_back(options.traces / file, times, options.seed)
        own_starts = sum(_holds(one.estimate.starts, outcome.started[one.request] - one.at) for one in told)
        own_ends = sum(_holds(one.estimate.ends, outcome.ended[one.request] - one.at) for one in told)
        width = sorted(
            (one.estimate.starts.high - one.estimate.starts.low) / (outcome.started[one.request] - one.at)
            for one in told
        )[len(told) // 2]
        print(
            f"  {name}: {len(told):,} of {len(outcome.trace):,} had to wait; {own_starts / len(told):.1%} started and "
            f"{own_ends / len(told):.1%} ended in their intervals, in the median {width:.1f} waits wide",
            flush=True,
        )
        starts, ends, count = starts + own_starts, ends + own_ends, count + len(told)
        reasons.update(one.estimate.why for one in told if one.estimate.reason)
    print(f"  reasons: {', '.join(f'{why} {number:,}' for why, number in reasons.most_common())}", flush=True)
    return [
        *_between("started within their 90% interval", starts / count),
        *_between("ended within their 90% interval", ends / count),
        Bar("waits with a reason", reasons.total() / count, 1.0, better="higher", note=f"of {count:,}"),
    ]


def _held_back(path: Path, times: float, seed: int) -> tuple[list[RecordedEstimate], RunOutcome]:
    trace = readers.read(path, seed, SERVEGEN_S) if path.suffix == ".tgz" else readers.read(path, seed)
    half = trace.lasts_s / 2
    first = Simulation(SETTINGS, HARDWARE, _assigned(until(trace, half), times, seed), POLICY)
    learned = SimulatedEstimates(first.state)
    first.run()
    second = Simulation(SETTINGS, HARDWARE, _assigned(since(trace, half), times, seed + 1), POLICY, seed=seed)
    estimates = SimulatedEstimates(second.state, learned.errors)
    second.rounds.measured = first.rounds.measured
    outcome = second.run()
    return estimates.made, outcome


def _assigned(trace: Trace, times: float, seed: int) -> Trace:
    return assign(faster(trace, times), SETTINGS, seed)


def _holds(interval: Interval, took_s: float) -> bool:
    return not math.isnan(took_s) and interval.low <= took_s <= interval.high


def _between(name: str, share: float) -> list[Bar]:
    return [
        Bar(f"{name}, at least", round(share, 4), 0.85, better="higher"),
        Bar(f"{name}, at most", round(share, 4), 0.95),
    ]
