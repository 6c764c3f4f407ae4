"""A figure and the bar that it has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


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
