"""Figures, and the bars that they have to reach."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure. ``value`` is None when it could not be measured, which is never ok."""

    name: str
    value: float | None
    bar: float
    better: Literal["higher", "lower"] = "lower"
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the figure reaches its bar."""
        if self.value is None:
            return False
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar

    def line(self) -> dict[str, Any]:
        """For the JSON line."""
        line = {"name": self.name, "value": self.value, "bar": self.bar, "better": self.better, "ok": self.ok}
        return {**line, "note": self.note} if self.note else line


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least that share of the values does not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


def show(bars: Sequence[Bar]) -> None:
    """Print them as a table."""
    table = Table("figure", "value", "bar", "ok", "note")
    for bar in bars:
        sign = ">=" if bar.better == "higher" else "<="
        value = "not measured" if bar.value is None else f"{bar.value:,g}"
        table.add_row(bar.name, value, f"{sign} {bar.bar:,g}", "yes" if bar.ok else "NO", bar.note)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def conclude(benchmark: str, bars: Sequence[Bar], began: float, **more: Any) -> int:
    """Print the table and, as the last line, one JSON object. Returns the exit code: 0 when every bar is reached.

    Args:
        began: when the benchmark began, by ``time.monotonic``.
        more: further fields of the object.
    """
    show(bars)
    took_s = round(time.monotonic() - began, 1)
    line = {"benchmark": benchmark, **more, "took_s": took_s, "bars": [bar.line() for bar in bars]}
    print(json.dumps(line), flush=True)
    return 0 if all(bar.ok for bar in bars) else 1
