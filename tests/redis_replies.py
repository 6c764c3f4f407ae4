"""Replies of Redis by the types that they have here; redis-py types them as unions over protocols and encodings."""

from __future__ import annotations

from typing import cast

import redis as redis_py


def text(reply: object) -> bytes:
    """A string of Redis that must be there."""
    assert isinstance(reply, bytes), reply
    return reply


def items(redis: redis_py.Redis, key: str) -> list[bytes]:
    """Those of a list, from its left end."""
    return cast("list[bytes]", redis.lrange(key, 0, -1))


def scores(redis: redis_py.Redis, key: str) -> list[tuple[bytes, float]]:
    """The members of a sorted set with their scores, the lowest first."""
    return cast("list[tuple[bytes, float]]", redis.zrange(key, 0, -1, withscores=True))


def entries(redis: redis_py.Redis, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of a stream with their ids, the oldest first."""
    return cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(key))
