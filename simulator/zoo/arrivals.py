"""Arrivals of a rate that changes: shapes of load over time, and the random times that follow them."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable

Shape = Callable[[float], float]
"""The rate at a time in seconds, as a multiple of a usual rate."""


def arrivals(rng: random.Random, per_s: float, lasts_s: float, shape: Shape, most: float) -> list[float]:
    """Random times of arrival (a Poisson process) at ``per_s * shape(t)``, by thinning (Lewis and Shedler, 1979).

    Args:
        most: the largest value of the shape.
    """
    found, now = [], 0.0
    while (now := now + rng.expovariate(per_s * most)) < lasts_s:
        if rng.random() * most < shape(now):
            found.append(now)
    return found


def constant(_: float) -> float:
    """Always the same."""
    return 1.0


def step(begins_s: float, ends_s: float, height: float) -> Shape:
    """``height`` for a while, 1 before and after."""
    return lambda at: height if begins_s <= at < ends_s else 1.0


def ramp(lasts_s: float, height: float) -> Shape:
    """From 1 up to ``height`` in three quarters of the time, and back in the last."""
    top = 0.75 * lasts_s
    return lambda at: 1 + (height - 1) * (at / top if at < top else (lasts_s - at) / (lasts_s - top))


def wave(period_s: float, swing: float) -> Shape:
    """Up and down around 1 by ``swing``, below 1."""
    return lambda at: 1 + swing * math.sin(2 * math.pi * at / period_s)


def crowd(begins_s: float, rises_s: float, fades_s: float) -> Shape:
    """Nothing, then a crowd that comes within ``rises_s`` and fades with the time constant ``fades_s``."""

    def shape(at: float) -> float:
        since = at - begins_s
        if since < 0:
            return 0.0
        return since / rises_s if since < rises_s else math.exp(-(since - rises_s) / fades_s)

    return shape


def bursts(rng: random.Random, lasts_s: float, burst_s: float, every_s: float, height: float) -> Shape:
    """Bursts of ``height`` at random times, ``burst_s`` long and ``every_s`` apart on average; 1 between them."""
    edges = [0.0]
    while edges[-1] < lasts_s:
        edges.append(edges[-1] + rng.expovariate(1 / every_s))
        edges.append(edges[-1] + rng.expovariate(1 / burst_s))
    return lambda at: height if bisect.bisect(edges, at) % 2 == 0 else 1.0
