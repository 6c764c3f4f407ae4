"""Drawing a workload: requests of drawn lengths that keep a fleet as busy as is asked for.

The usual replica is that of ``benchmarks/simulator/azure.py``: a model of 8 billion parameters on an NVIDIA L4, derived
from the card's data sheet. Lengths are log-normal around those of Azure's conversations (Patel et al., ISCA 2024).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings

from ..hardware import Hardware
from ..service import ServiceModel
from ..traces.trace import Trace, assign
from .arrivals import Shape, arrivals, constant
from .workload import Workload

MODEL = "llm"
SLOTS = 24
SERVICE = ServiceModel(step_s=0.060, sequence_s=0.0008, prompt_token_s=0.00035, load_s=60.0)
DEVICE = DeviceType(type="l4", count=24, memory_gb=24, price_per_hour=0.8)
TIERS = {"interactive": 1.0, "standard": 1.0, "batch": 1.0}
LONGEST = 32_768
SAMPLE = 2000
"""Lengths by which the mean work of a request is found."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens in and out of a request: medians of log-normal distributions, and the spread of their logarithms."""

    inputs: float = 1020.0
    outputs: float = 129.0
    inputs_sigma: float = 0.9
    outputs_sigma: float = 0.9

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """The tokens of one request."""
        drawn = rng.lognormvariate(math.log(self.inputs), self.inputs_sigma)
        generated = rng.lognormvariate(math.log(self.outputs), self.outputs_sigma)
        return max(1, min(LONGEST, round(drawn))), max(1, min(LONGEST, round(generated)))


@dataclass(frozen=True, slots=True)
class Draw:
    """What a workload is drawn from. ``busy`` is how many full replicas the usual rate keeps busy on devices of speed
    1; ``shape`` is the rate over time as a multiple of it, never above ``most``."""

    busy: float
    lasts_s: float = 2400.0
    shape: Shape = constant
    most: float = 1.0
    lengths: Lengths = Lengths()
    service: ServiceModel = SERVICE
    slots: int = SLOTS
    devices: Sequence[DeviceType] = (DEVICE,)
    models: Mapping[str, float] = field(default_factory=lambda: {MODEL: 1.0})
    tiers: Mapping[str, float] = field(default_factory=lambda: TIERS)
    tenants: Mapping[str, float] | None = None
    scaling: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True

    @property
    def settings(self) -> Settings:
        """The fleet file."""
        engine = {"engine": "embed"} if self.service.batches else {"engine": "generate"}
        count = sum(kind.count for kind in self.devices)
        model = Model(**engine, source="m", max_replicas=count, max_concurrency=self.slots)
        return Settings(models=dict.fromkeys(self.models, model), scaling=Scaling(**self.scaling))

    def work_s(self, rng: random.Random) -> float:
        """Device seconds of a request, on average."""
        drawn = [self.lengths.draw(rng) for _ in range(SAMPLE)]
        return sum(self.service.device_s(*pair, self.slots) for pair in drawn) / SAMPLE

    def requests(self, rng: random.Random) -> Trace:
        """The requests, without models and tiers."""
        at = arrivals(rng, self.busy / self.work_s(rng), self.lasts_s, self.shape, self.most)
        pairs = [self.lengths.draw(rng) for _ in at]
        return Trace(at, [inputs for inputs, _ in pairs], [outputs for _, outputs in pairs])

    def workload(self, rng: random.Random) -> Workload:
        """The workload."""
        return self.of(self.requests(rng), rng)

    def of(self, requests: Trace, rng: random.Random) -> Workload:
        """The workload of requests that were drawn already; models, tiers and tenants are drawn here."""
        hardware = Hardware(tuple(self.devices), dict.fromkeys(self.models, self.service))
        seed = rng.randrange(1 << 30)
        assigned = assign(requests, self.settings, seed, self.models, self.tiers, self.tenants)
        return Workload(self.settings, hardware, assigned, self.known)
