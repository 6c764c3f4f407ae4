"""What pulling from one queue gains over pushing each request to one worker as it comes. There is no bar.

Replicas as in figures 3 and 4 that stay, all loaded before the first request: of each trace the fewest with which
pulling attains 95% of the targets. The same replicas then get their requests by each other routing, in the same order
of tiers and tenants; and replicas are added until it attains as much. Beside Azure's traces stands ServeGen's, slowed
down to what 16 replicas can do, for the sake of its 108 tenants: affinity is theirs. Nothing is preempted: preemption
needs one queue, and would be a separate gain.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from autoscaler.sizing.policy_registry import BACKLOG
from simulator.hardware import Hardware
from simulator.queueing.routing import PULL, ROUTINGS, Routing
from simulator.results.report import Report, report
from simulator.run import Simulation
from simulator.traces import readers
from simulator.traces.trace import assign, faster

from . import azure
from .azure import DEVICES, HARDWARE, MODEL, SEQUENCES, SERVICE

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bars import Bar
    from simulator.traces.trace import Trace

ATTAINED = 0.95
SERVEGEN, SERVEGEN_TIMES, SERVEGEN_S = "servegen*.tgz", 0.12, 600.0
LOADED = Hardware(HARDWARE.devices, {MODEL: replace(SERVICE, load_s=0.0)})


def run(options: argparse.Namespace) -> list[Bar]:
    """All traces; with ``quick`` a third of each."""
    table = Table("trace", "replicas", "routing", "attained", "interactive", "its wait p99", "replicas for as much")
    for name, trace in _traces(options.traces, options.seed, options.quick):
        print(f"  {name}: {len(trace):,} requests in {trace.lasts_s:,.0f} s", flush=True)
        work_s = sum(
            SERVICE.device_s(*each, SEQUENCES) for each in zip(trace.input_tokens, trace.output_tokens, strict=True)
        )
        fewest = max(1, math.floor(work_s / trace.lasts_s))
        size, pulled = _enough(trace, PULL, ATTAINED, fewest)
        for routing in ROUTINGS.values():
            found = pulled if routing is PULL else _serve(trace, routing, size)
            enough, _ = (size, pulled) if routing is PULL else _enough(trace, routing, pulled.attained, size)
            told = f"{enough}" if enough <= DEVICES else f"more than {DEVICES}"
            first = found.tiers[0]
            table.add_row(
                name, f"{size}", routing.name, f"{found.attained:.1%}", f"{first.attained:.1%}",
                f"{first.wait_p99_s:.1f} s", told,
            )  # fmt: skip
    Console(width=120).print(table)
    return []


def _traces(folder: Path, seed: int, quick: bool) -> Iterator[tuple[str, Trace]]:
    part = 1 / 3 if quick else 1.0
    for name in azure.TRACES:
        yield name, azure.read(folder, name, seed, 1800 * part)
    clients = next(iter(sorted(folder.glob(SERVEGEN))), None)
    if clients is None:
        raise FileNotFoundError(f"no {SERVEGEN} in {folder}: say where the traces lie with --traces")
    trace = faster(readers.read(clients, seed, SERVEGEN_S * part), SERVEGEN_TIMES)
    yield "servegen", assign(trace, azure.fleet(), seed)


def _enough(trace: Trace, routing: Routing, attained: float, fewest: int) -> tuple[int, Report]:
    """The fewest replicas, at least ``fewest``, that attain ``attained``; ``DEVICES + 1`` when no number does."""
    for size in range(fewest, DEVICES + 1):
        found = _serve(trace, routing, size)
        if found.attained >= attained:
            return size, found
    return DEVICES + 1, found


def _serve(trace: Trace, routing: Routing, size: int) -> Report:
    settings = azure.fleet(size, size)
    tiers = {name: tier.model_copy(update={"preemptible": False}) for name, tier in settings.tiers.items()}
    settings = settings.model_copy(update={"tiers": tiers})
    outcome = Simulation(settings, LOADED, trace, BACKLOG, routing=routing).run()
    return report(routing.name, settings, LOADED, outcome)
