"""Synthetic load: as much as is asked for, in the proportions that production clusters were found to have.

Of the models of an Alibaba GenAI cluster the first took 31% of the requests and the first five 70%; loading a model
took 22.7, 42.0 and 51.8 s (p50, p90, p99). Lengths are log-normal around those of Azure's conversations (Splitwise,
ISCA 2024: median 1,020 tokens in and 129 out); the rate swings over the day, and arrivals are more bursty than random.
Its GPUs were busy for 7% of the time on average.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from producer.contract.fleet.fleet_schema import DeviceType, Model, Scaling
from producer.contract.fleet.settings import Settings

from ..hardware import Hardware
from ..service import ServiceModel
from .trace import Trace

MODELS = 86
BUSY = 0.07

FIRST, FIVE = 0.31, 0.70
LOAD_MEDIAN_S, LOAD_SIGMA = 22.7, 0.42
"""A log-normal between the published p90 and p99: 38.9 and 60.3 s against 42.0 and 51.8."""
INPUT_MEDIAN, INPUT_SIGMA = 1020, 0.9
OUTPUT_MEDIAN, OUTPUT_SIGMA = 129, 1.0
LONGEST = 32_768
DAY_S = 86_400.0


def popularity(models: int) -> list[float]:
    """Shares of that many models, most asked for first. They add up to 1."""
    head = [FIRST, *((FIVE - FIRST) * part for part in (0.4, 0.27, 0.19, 0.14))]
    tail = [1 / (rank + 1) for rank in range(models - len(head))]
    shares = [*head, *((1 - FIVE) * one / sum(tail) for one in tail)][:models]
    return [share / sum(shares) for share in shares]


def cluster(models: int = MODELS, devices: int = 64) -> tuple[Settings, Hardware]:
    """A fleet of ``models`` models that differ only in their load, on devices of one type.

    Their speed is that of a model of 8 billion parameters on an H100, roughly: 32 sequences get a token in 36 ms.
    """
    names = [f"model-{rank:02d}" for rank in range(1, models + 1)]
    model = Model(engine="echo", max_concurrency=32, max_replicas=devices)
    scaling = Scaling(idle_s=300.0)  # longer than the half minute that loading takes
    service = ServiceModel(0.02, 0.0005, 0.0001, load_s=LOAD_MEDIAN_S, load_sigma=LOAD_SIGMA)
    hardware = Hardware((DeviceType(type="gpu", count=devices),), dict.fromkeys(names, service))
    return Settings(models=dict.fromkeys(names, model), scaling=scaling), hardware


def rate(busy: float, settings: Settings, hardware: Hardware, shares: Mapping[str, float]) -> float:
    """Requests per second that keep that share of all devices busy, in full batches of each model by its share."""
    inputs = INPUT_MEDIAN * math.exp(INPUT_SIGMA**2 / 2)  # means of the log-normals
    outputs = OUTPUT_MEDIAN * math.exp(OUTPUT_SIGMA**2 / 2)
    each_s = sum(
        share * hardware.services[name].device_s(round(inputs), round(outputs), settings.models[name].max_concurrency)
        for name, share in shares.items()
    ) / sum(shares.values())
    return busy * sum(kind.count * kind.speed for kind in hardware.devices) / each_s


def generate(requests: int, per_s: float, seed: int = 0, cv: float = 2.0, swing: float = 0.5) -> Trace:
    """Requests at ``per_s`` on average, without models and tiers.

    Args:
        cv: coefficient of variation of the time between two arrivals at a constant rate; 1 is random (Poisson).
        swing: how far the rate goes up and down over a day, as a share of it, below 1. The day begins at its mean.
    """
    rng = random.Random(seed)
    shape = 1 / cv**2
    at, now = [], 0.0
    for _ in range(requests):
        rate = per_s * (1 + swing * math.sin(2 * math.pi * now / DAY_S))
        now += rng.gammavariate(shape, 1 / (shape * rate))
        at.append(now)
    return Trace(
        at, _lengths(rng, requests, INPUT_MEDIAN, INPUT_SIGMA), _lengths(rng, requests, OUTPUT_MEDIAN, OUTPUT_SIGMA)
    )


def _lengths(rng: random.Random, count: int, median: float, sigma: float) -> list[int]:
    mean = math.log(median)
    return [max(1, min(LONGEST, round(rng.lognormvariate(mean, sigma)))) for _ in range(count)]
