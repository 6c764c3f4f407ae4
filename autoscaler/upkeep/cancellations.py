"""Cancellations by producers that may not write results: the autoscaler waits for them, and fixes the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.queue.cancellation import cancel_all, readable
from producer.contract.server.dialogue import run

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings

WAIT_S = 1
"""Longest wait for a cancellation in one call, in seconds: how late the thread notices that it is to end."""

PAUSE_S = 0.05
"""Seconds between two calls: of many cancellations, those of so long are written together."""

AT_ONCE = 500
"""Most results that are fixed in one write."""


def fix_results(redis: Redis, settings: Settings) -> None:
    """Wait for cancellations, and fix the results of those jobs that have not ended.

    Raises:
        RedisError: Redis is away. What was taken by then is lost here: workers drop those jobs when they claim them,
            and the sweep answers those that are queued.
    """
    first: Any = redis.brpop([keys.cancellations()], timeout=WAIT_S)
    if first is None:
        return
    more: Any = redis.rpop(keys.cancellations(), AT_ONCE)
    run(redis, cancel_all(settings, readable([first[1], *(more or [])]), writes=True))
