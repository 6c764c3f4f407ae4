"""Steps of the wall clock: the autoscaler measures times by it, and it may be set at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable

SLACK_S = 1.0
"""Seconds up to which a difference is no step: a clock that is slewed moves by less between two rounds."""


class ClockSteps:
    """By how many seconds the wall clock was set between two calls; 0 when it was not set.

    Args:
        wall: Unix seconds.
        steady: seconds of a clock that cannot be set.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()

    def __call__(self) -> float:
        """The step since the last call, or since construction, in seconds."""
        before, self._offset = self._offset, self._wall() - self._steady()
        step = self._offset - before
        return step if abs(step) > SLACK_S else 0.0
