"""The server's clock, and whether it was set: leases are kept by it, and must not run out because of that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

SLACK_S = 0.5
"""How much faster than ours the server's clock may run between two looks, as one does that is slewed."""


class ServerClock:
    """Looks at the clock of a server from time to time.

    Args:
        steady: returns seconds of a clock that is never set, such as ``time.monotonic``.
    """

    def __init__(self, redis: Redis, steady: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._steady = steady
        self._last: tuple[float, float] | None = None
        self.seen_s = 0.0
        """The server's time at the last look."""
        self._set_at = -math.inf

    def was_set_forward_within(self, seconds: float) -> bool:
        """Whether the clock was set forward within the last ``seconds``, by this reading or an earlier one.

        A slow answer is no reason to think so: the time between two looks is taken at its longest.
        """
        asked_at = self._steady()
        whole, micros = self._redis.time()
        answered_at, server_s = self._steady(), whole + micros / 1e6
        if self._last is not None:
            last_asked_at, last_server_s = self._last
            if server_s - last_server_s > answered_at - last_asked_at + SLACK_S:
                self._set_at = answered_at
        self._last = asked_at, server_s
        self.seen_s = server_s
        return answered_at - self._set_at < seconds
