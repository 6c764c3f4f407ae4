"""What offline work costs the interactive one that it runs behind, and how much of it gets done.

Twelve replicas that stay; Azure's conversations as the interactive tier, then its code. Six files of offline jobs come
over the trace, with requests drawn from it: half of what the interactive work leaves of the devices. Measured against
the interactive work alone, and against first in, first out, both on the same devices and up to the last interactive
request. The order is the live one.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

from autoscaler.sizing.policy_registry import named
from benchmarks.bars import Bar
from simulator.queueing.queue_policy import FIFO, LIVE, QueuePolicy
from simulator.results.outcome import Fate
from simulator.traces import readers
from simulator.traces.trace import Trace

from . import azure
from .azure import MODEL, SEQUENCES, SERVICE

REPLICAS, FILES, SHARE = 12, 6, 0.5
TIERS = ("interactive", "batch")


def run(options: argparse.Namespace) -> list[Bar]:
    """Both traces; with ``quick`` their first ten minutes."""
    bars: list[Bar] = []
    for name in azure.TRACES:
        path = azure.find(options.traces, name)
        alone = _tiers(readers.read(path, options.seed, 600.0 if options.quick else None), 0)
        both = _merged(alone, _offline(alone, options.seed))
        (before, _), (after, done), (fifo, most) = (
            _serve(name, trace, order) for trace, order in ((alone, LIVE), (both, LIVE), (both, FIFO))
        )
        told = f"{after:.2%} with offline work, {before:.2%} alone, {fifo:.2%} first in, first out"
        bars += [
            Bar(f"interactive attainment kept, {name}", round(after / before, 4), 0.995, "higher", told),
            Bar(f"offline tokens of FIFO's, {name}", round(done / most, 4), 0.95, "higher", f"{done:,} of {most:,}"),
        ]
    return bars


def _serve(name: str, trace: Trace, order: QueuePolicy) -> tuple[float, int]:
    """Share of the interactive requests that were started in time, and offline tokens done when the last one came."""
    outcome = azure.run(name, trace, named("backlog"), azure.fleet(REPLICAS, REPLICAS), order).outcome
    until = max(at for at, tier in zip(trace.at, trace.tier, strict=True) if tier == 0)
    target_s = azure.fleet().tiers[TIERS[0]].target_wait_s
    came = met = tokens = 0
    for one, tier in enumerate(trace.tier):
        if tier == 0:
            came += 1
            met += outcome.fate[one] == Fate.DONE and outcome.started[one] - trace.at[one] <= target_s
        elif outcome.ended[one] <= until:
            tokens += trace.input_tokens[one] + trace.output_tokens[one]
    return met / came, tokens


def _offline(trace: Trace, seed: int) -> Trace:
    """Offline jobs like the trace's own, in files that come at equal intervals."""
    rng = random.Random(seed)
    pairs = [*zip(trace.input_tokens, trace.output_tokens, strict=True)]
    busy_s = sum(SERVICE.device_s(*pair, SEQUENCES) for pair in pairs)
    left_s = SHARE * (REPLICAS * trace.lasts_s - busy_s)
    drawn: list[tuple[int, int]] = []
    while left_s > 0:
        drawn.append(rng.choice(pairs))
        left_s -= SERVICE.device_s(*drawn[-1], SEQUENCES)
    at = [one * FILES // len(drawn) * trace.lasts_s * 0.9 / FILES for one in range(len(drawn))]
    return _tiers(Trace(at, [i for i, _ in drawn], [o for _, o in drawn]), 1)


def _tiers(trace: Trace, tier: int) -> Trace:
    zeros = [0] * len(trace)
    return replace(trace, tenant=zeros, model=zeros, tier=[tier] * len(trace), models=(MODEL,), tiers=TIERS)


def _merged(one: Trace, other: Trace) -> Trace:
    rows = [
        row
        for trace in (one, other)
        for row in zip(trace.at, trace.input_tokens, trace.output_tokens, trace.tier, strict=True)
    ]
    at, inputs, outputs, tiers = (list(column) for column in zip(*sorted(rows), strict=True))
    return replace(_tiers(Trace(at, inputs, outputs), 0), tier=tiers)
