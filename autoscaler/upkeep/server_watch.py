"""Looks at the server's own state now and then, and logs what is risky about it when that changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from producer.contract.server.server_warnings import read_warnings

if TYPE_CHECKING:
    from redis import Redis

LOOK_S = 60.0
"""Seconds between two looks: three times ``INFO``, some 0.1 ms each."""

log = logging.getLogger(__name__)


class ServerWatch:
    """Logs the server's warnings, each when it begins. Times are seconds of any clock."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: list[str] = []
        self._looked_at: float | None = None

    def look(self, now: float) -> None:
        """Ask the server, unless it was asked less than :data:`LOOK_S` ago."""
        if self._looked_at is not None and 0 <= now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        found = read_warnings(self._redis)
        for warning in found:
            if warning.split(";")[0] not in [known.split(";")[0] for known in self._known]:
                log.warning("%s", warning)
        self._known = found
