"""Compares the live policy with clairvoyant schedules and with a threshold policy.

On each of Azure's traces: the live policy as it is by default, against the cheapest clairvoyant schedule found that
misses no more requests (``schedules.py``); the linear program's bound, which no schedule can beat, stands beside it.
Then the threshold of the textbooks, +-1 step, against the live policy at equal device hours: its floor ``min_replicas``
is raised until it uses as many, in between two floors by interpolation. A fleet that never moves stands beside both.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from autoscaler.sizing.policy_registry import POLICIES, SLACK, named
from benchmarks.bars import Bar
from simulator.results.clairvoyant import clairvoyant

from . import azure, schedules
from .azure import DEVICES, HARDWARE

if TYPE_CHECKING:
    from simulator.traces.trace import Trace

    from .azure import Run

RATIOS = {"conversation": 1.10, "code": 1.25}
FEWER = 0.4
CUTS = 200
QUICK_S, QUICK_CUTS = 600.0, 20


def run(options: argparse.Namespace) -> list[Bar]:
    """Both traces; with ``quick`` their first ten minutes and a short search."""
    bars: list[Bar] = []
    drawn: list[tuple[str, Trace, dict[str, Run]]] = []
    for name, most in RATIOS.items():
        trace = azure.read(options.traces, name, options.seed, QUICK_S if options.quick else None)
        print(f"  {name}: {len(trace):,} requests in {trace.lasts_s:,.0f} s", flush=True)
        found, clairvoyants = _near(options, name, trace, most)
        bars += [found, _threshold(name, trace)]
        runs = {policy: azure.run(name, trace, named(policy), azure.fleet()) for policy in (SLACK.name, "threshold")}
        drawn.append((name, trace, {**runs, "clairvoyant": clairvoyants}))
    if options.plot is not None:
        from .picture import save

        save(drawn, options.plot)
    return bars


def _near(options: argparse.Namespace, name: str, trace: Trace, most: float) -> tuple[Bar, Run]:
    for policy in POLICIES.values():
        one = azure.run(name, trace, policy, azure.fleet())
        _tell(policy.name, one)
    ours = azure.run(name, trace, SLACK, azure.fleet())
    cuts = QUICK_CUTS if options.quick else CUTS
    best = schedules.cheapest(
        name, trace, ours.missed, cuts, options.seed, lambda said: print(f"    {said}", flush=True)
    )
    bound = clairvoyant(azure.fleet(), HARDWARE, ours.outcome).device_hours
    print(
        f"    clairvoyant: {best.hours:.3f} h, {best.missed} missed; no schedule needs less than {bound:.3f} h",
        flush=True,
    )
    note = f"{ours.hours:.3f} h against {best.hours:.3f}, {ours.hours / bound:.2f} times the bound; "
    note += f"{ours.report.attained:.1%} attained"
    bar = Bar(f"device hours, times a clairvoyant's, {name}", round(ours.hours / best.hours, 3), most, note=note)
    return bar, schedules.play(name, trace, best.schedule)


def _threshold(name: str, trace: Trace) -> Bar:
    threshold = azure.run(name, trace, named("threshold"), azure.fleet())
    figure = f"fewer missed targets than a threshold at equal hours, {name}"
    ours = _missed_at(threshold.hours, (azure.run(name, trace, SLACK, azure.fleet(low)) for low in range(DEVICES + 1)))
    fixed = _missed_at(
        threshold.hours, (azure.run(name, trace, SLACK, azure.fleet(size, size)) for size in range(1, DEVICES + 1))
    )
    note = f"{ours or 0:.0f} against {threshold.missed} at {threshold.hours:.2f} h; {fixed or 0:.0f} by a fixed fleet"
    fewer = None if ours is None else round(1 - ours / max(1, threshold.missed), 3)
    return Bar(figure, fewer, FEWER, "higher", note)


def _missed_at(hours: float, runs: Iterable[Run]) -> float | None:
    """Requests missed at ``hours`` device hours, interpolated between two runs; None when no run uses as many."""
    for one, more in itertools.pairwise(runs):
        if one.hours <= hours <= more.hours:
            share = (hours - one.hours) / max(more.hours - one.hours, 1e-9)
            return one.missed + share * (more.missed - one.missed)
    return None


def _tell(policy: str, one: Run) -> None:
    tiers = ", ".join(f"{tier.tier} {tier.attained:.1%}" for tier in one.report.tiers)
    print(f"    {policy:16} {one.hours:.3f} h, {one.missed:5} missed ({tiers}), {one.report.starts} starts", flush=True)
