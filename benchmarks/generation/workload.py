"""What is generated: prompts and answers of mixed lengths, and what a run of them came to. Pure, by their seed."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

OPENINGS = (
    "The capital of France is",
    "One, two, three, four,",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "The opposite of hot is",
    "Once upon a time, in a village by the sea,",
    "The three primary colours are",
    "To make a cup of tea, first",
    "The largest planet of the solar system is",
    "SELECT name FROM users WHERE",
    "A recipe for bread: flour, water,",
    "Monday, Tuesday, Wednesday,",
    "Dear Sir or Madam,",
    "In 1969, the first human being",
    "The theory of evolution says that",
    "import numpy as np\n",
    "Roses are red,",
    "The quick brown fox",
    "Q: What is the square root of 81?\nA:",
    "It was a dark and stormy night;",
    "The chemical symbol of gold is",
    "She opened the door and saw",
    "for (int i = 0; i < n; i++) {",
    "The history of the Roman Empire begins",
)
"""Openings of many kinds of text, from which a small model goes on as it can."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and how many tokens it may be answered with."""

    prompt: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """Duration of a run, and the number of requested tokens that it generated."""

    seconds: float
    tokens: int
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def mixed(count: int, *, shortest: int = 8, longest: int = 128, seed: int = 1) -> list[Ask]:
    """Prompts of one to six openings, each to be answered with ``shortest`` to ``longest`` tokens."""
    draw = random.Random(seed)
    return [
        Ask(" ".join(draw.choices(OPENINGS, k=draw.randint(1, 6))), draw.randint(shortest, longest))
        for _ in range(count)
    ]


def median_rate(runs: Sequence[Run]) -> float:
    """The median throughput of several runs, in tokens per second."""
    return statistics.median(run.rate for run in runs)
