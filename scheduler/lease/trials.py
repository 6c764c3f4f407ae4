"""Trials: when a worker runs suspects, so that these take no more than a share of its time from other jobs.

A suspect runs alone, because only then is its worker's death evidence against it. A worker that holds other jobs takes
none while it empties itself for a trial: that time belongs to the trial. Time is a value, in seconds by any clock that
does not go back.
"""

from __future__ import annotations

import enum
import math

from producer.estimates.wait_time import TRIAL_SHARE

LOAD_S = 30.0
"""Most seconds of a worker's load time that count as a trial: its predecessor may have died of one."""


class Order(enum.IntEnum):
    """Where a claim puts the suspects (``claim.lua``)."""

    NONE = 0
    """None is taken."""
    LAST = 1
    """One is taken if the worker holds nothing and there is nothing else to take."""
    FIRST = 2
    """One is taken before all else; a worker that holds jobs gets nothing, so that it soon holds none."""


SUSPECTS_LAST, SUSPECTS_FIRST = int(Order.LAST), int(Order.FIRST)  # for claim.lua


class Trials:
    """The trials of one worker.

    After a trial the suspects are last, until another job is taken. From then on for 9 times as long as the trial took
    (``TRIAL_SHARE``) there is none, not even in an idle worker, which the next job would find occupied. Then suspects
    are first.

    Args:
        created_at: when the worker began to load.
    """

    def __init__(self, created_at: float) -> None:
        self._created_at = created_at
        self._began_at: float | None = None
        self._owed_s: float | None = None  # how long the last trial took, unless others were served since
        self._pause_until = -math.inf

    def order(self, now: float) -> Order:
        """Where suspects are in a claim."""
        if now < self._pause_until:
            return Order.NONE
        return Order.FIRST if self._owed_s == 0.0 else Order.LAST

    def begin(self, now: float) -> None:
        """A trial begins, or the worker empties itself for one."""
        if self._began_at is None:
            self._began_at = now

    def end(self, now: float) -> None:
        """The trial is over, or there is no suspect any more to empty the worker for."""
        if self._began_at is not None:
            self._owed_s, self._began_at = now - self._began_at, None

    def serve(self, now: float) -> None:
        """Another job was taken."""
        if self._owed_s is None:
            self._owed_s = min(now - self._created_at, LOAD_S)
        if self._owed_s > 0:
            self._pause_until = now + self._owed_s * (1 / TRIAL_SHARE - 1)
            self._owed_s = 0.0
