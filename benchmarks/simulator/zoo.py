"""Workloads on which another policy by name is better than the default in both, device hours and missed targets.

The zoo's held-out half (``simulator/zoo``), on which no policy was tuned, and the given traces: Azure's two in the
setting of figure 3, ServeGen's clients slowed down to what its replicas can do, and generated long prompts on H100s,
cold. All policies for the number of replicas run on each. A policy dominates another with at least 2% fewer hours and
2% fewer missed targets at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from autoscaler.sizing.policy_registry import POLICIES, SLACK
from benchmarks.bars import Bar
from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from simulator import policy_spec
from simulator.hardware import Hardware
from simulator.service import ServiceModel
from simulator.traces import readers
from simulator.traces.trace import assign, faster
from simulator.zoo.judgement import Judged, judge, judge_workloads
from simulator.zoo.registry import FAMILIES
from simulator.zoo.workload import Half, Workload

from . import azure

QUICK = ("steady", "long prompts", "a flash crowd from zero")
LONG_PROMPTS, LONG_PROMPTS_TIMES, LONG_PROMPTS_SEED = "long_prompts*.jsonl.gz", 0.6, 3
H100 = Hardware(
    (DeviceType(type="h100", count=64, price_per_hour=3.0),), {"llm": ServiceModel(0.02, 0.0005, 0.0001, load_s=60.0)}
)
SERVEGEN, SERVEGEN_TIMES, SERVEGEN_S = "servegen*.tgz", 0.12, 600.0


def run(options: argparse.Namespace) -> list[Bar]:
    """The zoo, then the traces; with ``quick`` three families and no trace."""
    policies = [policy_spec.named(name, SLACK.name) for name in POLICIES]
    chosen = QUICK if options.quick else tuple(FAMILIES)
    zoo = []
    for name in chosen:
        zoo.append(judge(FAMILIES[name], Half.HELD_OUT, policies))
        _tell(zoo[-1])
    bars = [_bar("zoo's families, held-out half,", zoo)]
    if not options.quick:
        traces = []
        for name, workload in _traces(options.traces, options.seed):
            traces.append(judge_workloads(name, "a given trace", [(workload, options.seed)], policies))
            _tell(traces[-1])
        bars.append(_bar("given traces", traces))
    return bars


def _bar(what: str, judged: list[Judged]) -> Bar:
    found = {one.name: by for one in judged if (by := one.dominating(SLACK.name))}
    note = "; ".join(f"{name}: by {', '.join(by)}" for name, by in found.items())
    return Bar(f"{what} on which the default is dominated", len(found), 0, note=note or f"of {len(judged)}")


def _tell(one: Judged) -> None:
    own = one.scores[SLACK.name]
    told = ", ".join(f"{name} {score.hours:.2f} h {score.missed} missed" for name, score in one.scores.items())
    attained = ", ".join(f"{tier} {share:.1%}" for tier, share in own.attained.items())
    print(f"  {one.name}: {told}; bound {one.bound_hours or 0:.2f} h; {SLACK.name} attained {attained}", flush=True)


def _traces(folder: Path, seed: int) -> Iterator[tuple[str, Workload]]:
    for name in azure.TRACES:
        yield name, Workload(azure.fleet(), azure.HARDWARE, azure.read(folder, name, seed))
    for path in sorted(folder.glob(SERVEGEN)):
        requests = readers.read(path, seed, SERVEGEN_S)
        yield (
            "ServeGen",
            Workload(azure.fleet(), azure.HARDWARE, assign(faster(requests, SERVEGEN_TIMES), azure.fleet(), seed)),
        )
    model = Model(engine="generate", source="llm", max_concurrency=32, max_replicas=64)
    fleet = Settings(models={"llm": model}, scaling=Scaling(idle_s=60.0))
    for path in sorted(folder.glob(LONG_PROMPTS)):
        requests = faster(readers.read(path, LONG_PROMPTS_SEED), LONG_PROMPTS_TIMES)
        yield "long prompts, cold", Workload(fleet, H100, assign(requests, fleet, LONG_PROMPTS_SEED), known=False)
