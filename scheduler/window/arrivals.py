"""Arrival rates: over all time, and while jobs are queued or running.

The second determines the expected batch-mates of a held job. With independent producers both rates are equal; with
bursts the second is many times the first. It counts arrivals within occupied time. An arrival that ends an idle time is
left out, since it begins the occupied one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MEMORY_S = 10.0
"""Time constant of the exponential weights, in seconds."""
LATEST = 4096
"""ArrivalRates whose times are kept."""
CAUTION_S = 0.1
"""Idle seconds that each sum starts with: one job in the first millisecond is no rate of a thousand."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs per second: over all time, and over the time in which jobs were queued or running."""

    per_s: float = 0.0
    joining_per_s: float = 0.0


class ArrivalRates:
    """Learns the rates from readings of a counter of arrivals, by the server's clock."""

    def __init__(self) -> None:
        self._seen: tuple[float, int] | None = None
        self._jobs = self._seconds = 0.0
        self._joined = self._occupied_s = 0.0
        self._latest: deque[float] = deque(maxlen=LATEST)

    def see(self, now: float, arrived: int, *, occupied: bool, waiting: bool) -> None:
        """Take a reading.

        Args:
            now: seconds by the server's clock.
            arrived: jobs that had ever arrived; when it shrinks, as on an emptied server, counting starts again.
            occupied: whether jobs were queued or running since the reading before.
            waiting: whether jobs stayed queued after the reading before.
        """
        before, self._seen = self._seen, (now, arrived)
        if before is None or now < before[0] or arrived < before[1]:
            return
        passed, came = now - before[0], arrived - before[1]
        # When the queue is empty, the worker notices a push at once. Otherwise the jobs are taken to have come evenly
        # since the last reading.
        gap = passed / came if waiting and came else 0.0
        self._latest.extend(now - gap * (later + 0.5) for later in range(min(came, LATEST) - 1, -1, -1))
        keep = math.exp(-passed / MEMORY_S)
        self._jobs = self._jobs * keep + came
        self._seconds = self._seconds * keep + passed
        self._joined = self._joined * keep + (came if occupied else 0)
        self._occupied_s = self._occupied_s * keep + (passed if occupied else 0)

    def take(self) -> list[float]:
        """Arrival times of the latest jobs, estimated from the readings, oldest first; each is returned once."""
        latest = list(self._latest)
        self._latest.clear()
        return latest

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def rate(self) -> Rate:
        """The rates now. While little time was occupied, arrivals are assumed to be independent."""
        per_s = self._jobs / (self._seconds + CAUTION_S)
        return Rate(per_s, (self._joined + per_s * CAUTION_S) / (self._occupied_s + CAUTION_S))
