"""How fast jobs arrive: over all time, and while there is already something to do.

The second is what decides how much company a waiting job gets: with independent producers both are the same, with
bursts it is many times the first. It counts the arrivals that fall into occupied time, which begins with a job; the
arrivals that end an idle time are left out, as each of them begins an occupied one.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MEMORY_S = 10.0
"""What is longer ago than this counts for little."""
LATEST = 4096
"""Arrivals whose instants are kept."""
CAUTION_S = 0.1
"""Empty time that each sum starts with: a job in the first millisecond is no rate of a thousand."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Jobs per second: of all time, and of the time in which there was something to do."""

    per_s: float = 0.0
    joining_per_s: float = 0.0


class Arrivals:
    """Learns the rate from looks at a counter of arrivals, by the server's clock."""

    def __init__(self) -> None:
        self._seen: tuple[float, int] | None = None
        self._jobs = self._seconds = 0.0
        self._joined = self._occupied_s = 0.0
        self._latest: deque[float] = deque(maxlen=LATEST)

    def see(self, now: float, arrived: int, *, occupied: bool, waiting: bool) -> None:
        """Take a look.

        Args:
            now: seconds by the server's clock.
            arrived: jobs that had ever arrived by then; when it shrinks, as with an emptied server, it starts anew.
            occupied: whether, since the look before, a job waited or ran.
            waiting: whether the look before left jobs waiting.
        """
        before, self._seen = self._seen, (now, arrived)
        if before is None or now < before[0] or arrived < before[1]:
            return
        passed, came = now - before[0], arrived - before[1]
        # When nothing waits, a push is seen at once. Else they came at some time or other since the look before.
        gap = passed / came if waiting and came else 0.0
        self._latest.extend(now - gap * (later + 0.5) for later in range(min(came, LATEST) - 1, -1, -1))
        keep = math.exp(-passed / MEMORY_S)
        self._jobs = self._jobs * keep + came
        self._seconds = self._seconds * keep + passed
        self._joined = self._joined * keep + (came if occupied else 0)
        self._occupied_s = self._occupied_s * keep + (passed if occupied else 0)

    def take(self) -> list[float]:
        """When the latest jobs came, as far as the looks tell, oldest first; each is told once."""
        latest = list(self._latest)
        self._latest.clear()
        return latest

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def rate(self) -> Rate:
        """The rates now. As long as little time was occupied, jobs are supposed to come independently."""
        per_s = self._jobs / (self._seconds + CAUTION_S)
        return Rate(per_s, (self._joined + per_s * CAUTION_S) / (self._occupied_s + CAUTION_S))
