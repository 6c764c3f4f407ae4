"""The tables for people."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar, percentile
from benchmarks.bars import show as show_bars

from .bars import Round, ratio
from .roster import OURS, STOCK
from .survival import Survival


def show(
    rounds: Sequence[Round],
    asked_s: Mapping[str, Sequence[float]],
    survivals: Mapping[str, Survival],
    bars: Sequence[Bar],
) -> None:
    """Print what was measured, medians over the rounds, and the bars."""
    if rounds:
        Console(width=None if sys.stdout.isatty() else 150).print(_contestants(rounds, asked_s, survivals))
    show_bars(bars)


def _contestants(
    rounds: Sequence[Round], asked_s: Mapping[str, Sequence[float]], survivals: Mapping[str, Survival]
) -> Table:
    table = Table("", "CPU per job, us", f"{STOCK} over it", "jobs/s", "enqueued/s", "p50, ms", "p99, ms", "kill -9")
    for name in rounds[0]:
        turns = [each[name] for each in rounds]
        asked = [1000 * took_s for took_s in asked_s[name]]
        rates = [statistics.median(turn.rates[way] for turn in turns) for way in turns[0].rates]
        table.add_row(
            name,
            f"{1e6 * statistics.median(turn.cpu_s for turn in turns):,.0f}",
            f"{ratio(rounds, STOCK, name, lambda turn: turn.cpu_s):.1f}x" if STOCK in rounds[0] else "",
            f"{statistics.median(turn.throughput for turn in turns):,.0f}",
            " / ".join(f"{rate:,.0f}" for rate in rates),
            f"{percentile(asked, 0.5):.2f}",
            f"{percentile(asked, 0.99):.2f}",
            _fate(survivals.get(name)),
            style="bold" if name == OURS else "",
        )
    return table


def _fate(survival: Survival | None) -> str:
    if survival is None:
        return "not tried"
    if survival.survives:
        return f"survives ({survival.waited_s:.0f} s)"
    return f"loses {survival.lost} of {survival.jobs}" if survival.kills else "never hit"
