"""The requests: of mixed lengths, the same for every contestant. Pure, by their seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

WORDS = """
    the of and to in a is that for it as was with be by on not he his but at are this have from or had an they
    which one you were her all she there would their we him been has when who will more no if out so said what up
    its about into than them can only other new some could time these two may then do first any my now such like
    our over man me even most made after also did many before must through years where much your way well down
    should because each just those people how too little state good very make world still own see men work long
    get here between both life being under never day same another know while last might us great old year off come
    since against go came right used take
""".split()  # noqa: SIM905  a list would be a page of quotation marks
"""Common English words, of about one token each."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One job: its inputs and its parameters."""

    input: str | list[str]
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> list[str]:
        """The inputs as an engine takes them."""
        return self.input if isinstance(self.input, list) else [self.input]


@dataclass(frozen=True, slots=True)
class Work:
    """What one run does. ``unit`` is what its throughput counts."""

    name: str
    model: str
    unit: Literal["output tokens", "inputs"]
    asks: list[Ask]
    bar: float | None = None
    """Least throughput of the fleet over the engine's; None where nothing is promised."""

    def units(self, inputs: int, usage: dict[str, int]) -> int:
        """What one answer counts for."""
        return inputs if self.unit == "inputs" else usage["output_tokens"]

    def share(self, of: float) -> Work:
        """A smaller run of the same kind."""
        return replace(self, asks=self.asks[: max(1, round(len(self.asks) * of))])


def text(draw: random.Random, words: int) -> str:
    """A meaningless text of that number of words."""
    return " ".join(draw.choices(WORDS, k=words))


def prompts(count: int, *, shortest: int = 8, longest: int = 64, seed: int = 1) -> list[Ask]:
    """Prompts of 4 to 64 words, each asking for ``shortest`` to ``longest`` tokens."""
    draw = random.Random(seed)
    return [
        Ask(text(draw, draw.randint(4, 64)), {"max_new_tokens": draw.randint(shortest, longest)}) for _ in range(count)
    ]


def texts(count: int, *, seed: int = 2) -> list[str]:
    """Half queries and sentences (3 to 30 words), a third paragraphs (30 to 120), the rest passages (120 to 240)."""
    draw = random.Random(seed)
    kinds: list[Callable[[], int]] = [
        lambda: draw.randint(3, 30),
        lambda: draw.randint(30, 120),
        lambda: draw.randint(120, 240),
    ]
    return [text(draw, draw.choices(kinds, weights=(3, 2, 1))[0]()) for _ in range(count)]


def single_texts(count: int) -> list[Ask]:
    """Jobs of one text each: the hard case, for the queue is paid for every text."""
    return [Ask(each) for each in texts(count)]


def bundles(count: int, size: int) -> list[Ask]:
    """Jobs of ``size`` texts each."""
    every = texts(count * size)
    return [Ask(every[at : at + size]) for at in range(0, len(every), size)]
