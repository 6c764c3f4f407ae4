"""The setting of figures 3 and 4: Azure's traces on a fleet of at most 16 L4s.

The replica is Llama 3.1 8B in BF16 on one NVIDIA L4 (24 GB, 300 GB/s). Its 16 GB of weights are read once a step: 54 ms
at the card's full bandwidth, 60 ms with what kernels reach of it. A sequence of 1,500 tokens adds 0.2 GB of keys and
values: 0.8 ms. A prompt token takes 16 GFLOP: 0.35 ms at 46 of the card's 121 TFLOPS. Some 5 GB are left for keys and
values of 128 KB a token: 24 sequences. Loading takes 60 s. These are derived from the card's data sheet, not measured.

No trace has tiers: each request gets one of the fleet's three (1, 30 and 600 s) by lot, all alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings
from simulator.hardware import Hardware
from simulator.queueing.queue_policy import LIVE, QueuePolicy
from simulator.results.report import Report, report
from simulator.run import Simulation
from simulator.service import ServiceModel
from simulator.traces import readers
from simulator.traces.trace import assign

if TYPE_CHECKING:
    from autoscaler.sizing.policy_registry import Policy
    from simulator.results.outcome import RunOutcome
    from simulator.traces.trace import Trace

MODEL = "llama"
DEVICES, SEQUENCES, LOAD_S = 16, 24, 60.0
SERVICE = ServiceModel(step_s=0.060, sequence_s=0.0008, prompt_token_s=0.00035, load_s=LOAD_S)
HARDWARE = Hardware((DeviceType(type="l4", count=DEVICES, memory_gb=24, price_per_hour=0.8),), {MODEL: SERVICE})
TRACES = {"conversation": "azure_2023_conv*.csv.gz", "code": "azure_2023_code*.csv.gz"}
USUAL = {"conversation": (1243, 217), "code": (2028, 27)}
"""Tokens in and out of a request, on average, in the first half hours. What a full replica does with these is what the
fleet remembers, as Redis would, of the days before."""


@dataclass(frozen=True, slots=True)
class Run:
    """One policy on one trace."""

    report: Report
    outcome: RunOutcome

    @property
    def hours(self) -> float:
        """Device hours, loading and draining included."""
        return self.report.device_hours

    @property
    def missed(self) -> int:
        """Requests that were not started within their target."""
        return self.report.missed


def find(folder: Path, name: str) -> Path:
    """The file of a trace: of several parts, the first by name.

    Raises:
        FileNotFoundError: naming what was looked for.
    """
    found = sorted(folder.glob(TRACES[name]))
    if not found:
        raise FileNotFoundError(f"no {TRACES[name]} in {folder}: say where the traces lie with --traces")
    return found[0]


def read(folder: Path, name: str, seed: int, lasts_s: float | None = None) -> Trace:
    """A trace with its tiers."""
    return assign(readers.read(find(folder, name), seed, lasts_s), fleet(), seed)


def fleet(low: int = 0, high: int = DEVICES, scaling: Mapping[str, Any] | None = None) -> Settings:
    """Settings with the least and most replicas of the model, and defaults otherwise."""
    model = Model(engine="generate", source=MODEL, min_replicas=low, max_replicas=high, max_concurrency=SEQUENCES)
    return Settings(models={MODEL: model}, scaling=Scaling(**(scaling or {})))


def run(
    name: str, trace: Trace, policy: Policy, settings: Settings, order: QueuePolicy = LIVE, sample_s: float = 5.0
) -> Run:
    """One run, of a fleet that has served such requests before."""
    simulation = Simulation(settings, HARDWARE, trace, policy, order, sample_s=sample_s)
    usual_s = SERVICE.device_s(*USUAL[name], SEQUENCES)
    simulation.rounds.measured[MODEL].update(jobs_per_s=1 / usual_s, load_s=LOAD_S)
    outcome = simulation.run()
    return Run(report(policy.name, settings, HARDWARE, outcome), outcome)
