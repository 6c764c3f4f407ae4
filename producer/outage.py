"""A Redis that is away for a while: a call that waits rides it out, up to a point."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from .contract.errors import BrokerUnavailable
from .contract.fleet.settings import Settings
from .contract.server.redis_errors import cannot_serve, trouble, unavailable

logger = logging.getLogger(__name__)

OUTAGE_S = 30.0
"""How long a waiting call rides out a Redis that is away, in seconds."""

RETRY_S = 0.1
"""When to try again, in seconds."""


class Outage:
    """Since when Redis has been away, as one call sees it. ``doing`` is what it does, for the error."""

    def __init__(self, settings: Settings, doing: str) -> None:
        self._settings = settings
        self._doing = doing
        self._since: float | None = None

    def ride_out(self, error: Exception) -> float:
        """How long to wait before the next attempt, in seconds.

        Raises:
            BrokerUnavailable: it lasts longer than ``OUTAGE_S``.
            Exception: ``error`` itself, if it says anything else than that Redis cannot serve now.
        """
        if not cannot_serve(error):
            raise error
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning("%s: %s; trying again for %g s", self._doing, trouble(error, self._settings), OUTAGE_S)
        if now - self._since > OUTAGE_S:
            raise unavailable(error, self._settings, self._doing) from error
        return RETRY_S

    def end(self) -> None:
        """Redis has answered."""
        if self._since is not None:
            logger.warning("%s: Redis answers again after %.1f s", self._doing, time.monotonic() - self._since)
        self._since = None

    def forget(self) -> None:
        """Nothing is asked of Redis for now: what was seen of it may be over, and the next failure begins another."""
        self._since = None


async def persist(
    attempt: Callable[[], Awaitable[None]], outage: Outage, fail: Callable[[Exception], None], pause_s: float
) -> None:
    """Do something again and again, whatever happens, until cancelled.

    Args:
        fail: reports an outage that lasts too long, or any other error, to the waiting callers, so that none hangs.
        pause_s: when to go on after such an error, as of a permission that is missing, in seconds.
    """
    while True:
        try:
            await attempt()
        except Exception as error:
            try:
                pause = outage.ride_out(error)
            except Exception as told:
                logger.error("%s", told)
                fail(told)
                outage.forget()
                pause = 0.0 if isinstance(told, BrokerUnavailable) else pause_s
            await asyncio.sleep(pause)
