"""The window of one model on one kind of device, learned: from looks at arrivals and from batches that ran."""

from __future__ import annotations

from collections.abc import Sequence

from .arrivals import Arrivals
from .batch_cost import LearnedCost
from .hindsight import Hindsight
from .window import HoldLimits, hold, law, scarce, slack

LOOK_AT = 64
"""Arrivals after which the shadows are run."""
LOOK_S = 0.1
"""And the least time between two runs of them, in seconds: whatever comes, they take some thousandths of the time."""


class LearnedWindow:
    """Knows how long jobs may now wait for a fuller batch. Nothing learned, nobody held.

    Args:
        targets_s: in how many seconds each tier wants its answer.
        rows: how many inputs fill a batch.
    """

    def __init__(self, targets_s: Sequence[float], rows: int) -> None:
        if rows < 1 or not targets_s:
            raise ValueError(f"rows = {rows}, targets_s = {targets_s}: at least one each")
        self._rows = rows
        self.cost = LearnedCost()
        """Of a batch."""
        self._arrivals = Arrivals()
        self._hindsight = [Hindsight(target_s) for target_s in targets_s]
        self._looked_at = 0.0

    def see(self, now: float, arrived: int, *, occupied: bool, waiting: bool) -> None:
        """Take a look at arrivals. See ``Arrivals.see``."""
        self._arrivals.see(now, arrived, occupied=occupied, waiting=waiting)
        if len(self._arrivals) >= LOOK_AT and now >= self._looked_at + LOOK_S:
            self._look(now)

    def hold(self, busy_s: float = 0.0) -> HoldLimits:
        """How long jobs may be held now, if the device becomes free in ``busy_s`` seconds."""
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
