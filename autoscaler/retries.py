"""Retries: the models that an operator wants started again at once (``stoker retry``), without the rest of a back-off.

A request is a member of a set in Redis, which the leader takes out. A leader that loses its lease with a request in
hand loses its back-offs too: its successor begins without any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from producer.contract import heartbeat, keys

if TYPE_CHECKING:
    from redis import Redis

AT_ONCE = 1000
"""Most requests taken in one round."""


def ask(redis: Redis, model: str) -> None:
    """Request that a model is started again in the leader's next round, if it wants a replica."""
    redis.sadd(keys.retry_requests(), model)


def take(redis: Redis) -> list[str]:
    """Take the models that were requested since the last call."""
    found = redis.spop(keys.retry_requests(), AT_ONCE)
    return sorted(heartbeat.text(name) for name in found or ())
