"""A workload: a fleet and the requests that come to it; and families of them, drawn by their parameters and a seed.

Each family comes in two halves that share no seed and no value of any parameter. Policies are tuned on the development
half. The held-out half only judges: once policies were tuned on it, it would say no more of load that nobody knew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

    from ..hardware import Hardware
    from ..traces.trace import Trace

FIRST_HELD_OUT = 1_000_000
"""Seeds from this on are held out."""


class Half(StrEnum):
    """A half of every family."""

    DEVELOPMENT = "development"
    HELD_OUT = "held-out"

    def seed(self, nth: int) -> int:
        """The seed of the half's workload number ``nth``, from 0 on."""
        return nth + (FIRST_HELD_OUT if self is Half.HELD_OUT else 0)


@dataclass(frozen=True, slots=True)
class Workload:
    """``known`` is whether the fleet has served such requests before, so that the capacity of a replica and its load
    time are on record, as Redis keeps them; without, it starts cold."""

    settings: Settings
    hardware: Hardware
    trace: Trace
    known: bool = True


@dataclass(frozen=True, slots=True)
class Parameter:
    """The interval from which a value is drawn in each half; the two have nothing in common."""

    development: tuple[float, float]
    held_out: tuple[float, float]

    def draw(self, rng: random.Random, half: Half) -> float:
        """A value, all in the interval alike."""
        return rng.uniform(*(self.development if half is Half.DEVELOPMENT else self.held_out))


@dataclass(frozen=True, slots=True)
class Family:
    """Workloads of one kind. ``reason`` says why it is in the zoo."""

    name: str
    reason: str
    parameters: Mapping[str, Parameter]
    build: Callable[[Mapping[str, float], random.Random], Workload]

    def workload(self, half: Half, nth: int = 0) -> Workload:
        """The half's workload number ``nth``; the same arguments give the same one."""
        rng = random.Random(f"{self.name} {half.seed(nth)}")
        values = {name: parameter.draw(rng, half) for name, parameter in self.parameters.items()}
        return self.build(values, rng)
