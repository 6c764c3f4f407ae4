"""The learned window of one model on one device type, from observed arrivals and batches."""

from __future__ import annotations

from collections.abc import Sequence

from .arrivals import ArrivalRates
from .batch_cost import LearnedCost
from .hindsight import Hindsight
from .window import HoldLimits, hold, law, scarce, slack

LOOK_AT = 64
"""Arrivals after which hindsight is updated."""
LOOK_S = 0.1
"""Least time between two updates in seconds, so that they take some thousandths of the time at any load."""


class LearnedWindow:
    """Says how long jobs may be held for a fuller batch. Cold start: no delay.

    Args:
        targets_s: target of each tier, in seconds.
        rows: rows that fill a batch.
    """

    def __init__(self, targets_s: Sequence[float], rows: int) -> None:
        if rows < 1 or not targets_s:
            raise ValueError(f"rows = {rows}, targets_s = {targets_s}: at least one each")
        self._rows = rows
        self.cost = LearnedCost()
        """The cost of a batch."""
        self._arrivals = ArrivalRates()
        self._hindsight = [Hindsight(target_s) for target_s in targets_s]
        self._looked_at = 0.0

    def see(self, now: float, arrived: int, *, occupied: bool, waiting: bool) -> None:
        """Take a reading of the counter of arrivals; see ``ArrivalRates.see``."""
        self._arrivals.see(now, arrived, occupied=occupied, waiting=waiting)
        if len(self._arrivals) >= LOOK_AT and now >= self._looked_at + LOOK_S:
            self._look(now)

    def hold(self, busy_s: float = 0.0) -> HoldLimits:
        """The hold limits now, for a device that becomes free in ``busy_s`` seconds."""
        cost, rate, full = self.cost.cost, self._arrivals.rate, self._full
        idle = scarce(cost, rate)
        hold_s = []
        for hindsight in self._hindsight:
            slack_s = slack(cost, rate, hindsight.target_s, full)
            hold_s.append(min(slack_s, hindsight.within(0.0 if idle else law(cost, rate, slack_s, full))))
        return hold(cost, hold_s, full, rate, busy_s)

    @property
    def _full(self) -> int:
        return max(1, round(self._rows / self.cost.rows_per_job))

    def _look(self, now: float) -> None:
        self._looked_at = now
        cost, rate, full, came = self.cost.cost, self._arrivals.rate, self._full, self._arrivals.take()
        for hindsight in self._hindsight:
            slack_s = slack(cost, rate, hindsight.target_s, full)
            longest_s = min(slack_s, max(2 * law(cost, rate, slack_s, full), cost.expected(1)))
            hindsight.look(came, now, cost, full, longest_s)
