"""Synthetic load: as much as is asked for, in the proportions that production clusters were found to have.

Of the models of an Alibaba GenAI cluster the first took 31% of the requests and the first five 70%; loading a model
took 22.7, 42.0 and 51.8 s (p50, p90, p99). Lengths are log-normal around those of Azure's conversations (Splitwise,
ISCA 2024: median 1,020 tokens in and 129 out); the rate swings over the day, and arrivals are more bursty than random.
"""

from __future__ import annotations

import math
import random

from .trace import Trace

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
