"""Round trips at low load: everybody's worker up and asleep, and a few asked of each in turn.

In turns, since a round trip is mostly waiting for a processor: between two minutes of a shared machine it differs by
more than between two contestants.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from .roster import Contestant
from .stage import Stage
from .turn import warm_up

PAUSE_S = 0.01
"""Before each, so that the worker is asleep when the job comes."""

IN_A_ROW = 10


def ask_in_turns(contestants: Sequence[Contestant], folder: Path, asks: int) -> dict[str, list[float]]:
    """How long each round trip of each contestant took, in seconds."""
    took_s: dict[str, list[float]] = {each.name: [] for each in contestants}
    with ExitStack() as stack:
        stages = []
        for number, each in enumerate(contestants):
            stages.append(stack.enter_context(Stage(each, folder / f"asks-{number}")))
            warm_up(stages[-1])
        for turn in range(-(-asks // IN_A_ROW)):
            for stage in stages[:: -1 if turn % 2 else 1]:
                took_s[stage.contestant.name] += stage.tell("ask", times=IN_A_ROW, pause_s=PAUSE_S)["took_s"]
    return took_s
