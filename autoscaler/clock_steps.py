"""Steps of the wall clock, by which the autoscaler reckons and which anybody may set."""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK_S = 1.0
"""A clock that is slewed is not set, and moves by less between two rounds."""


class ClockSteps:
    """By how much the wall clock was set between two looks, in seconds; 0 when it only went on.

    Args:
        steady: seconds of a clock that nobody sets.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()

    def __call__(self) -> float:
        """Look."""
        before, self._offset = self._offset, self._wall() - self._steady()
        step = self._offset - before
        return step if abs(step) > SLACK_S else 0.0
