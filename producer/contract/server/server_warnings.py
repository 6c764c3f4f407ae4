"""What is risky about the server behind ``redis.url`` though it serves: by its ``INFO``, with the cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError

if TYPE_CHECKING:
    from redis import Redis

SECTIONS = ("memory", "stats", "persistence")
"""Of ``INFO``, which :func:`server_warnings` reads."""


def server_warnings(info: Mapping[str, Any]) -> list[str]:
    """The warnings, one for each risk.

    A policy for keys that expire, such as ``volatile-lru``, drops results, streams and heartbeats; others drop queues.
    """
    found = []
    policy, limit = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if limit and policy != "noeviction":
        what = "results" if policy.startswith("volatile-") else "accepted jobs"
        evicted = int(info.get("evicted_keys", 0))
        so_far = f"it has dropped {evicted} keys so far" if evicted else "it has dropped none yet"
        found.append(
            f"Redis drops {what} when its memory is full (maxmemory {limit / 1e6:.0f} MB, maxmemory-policy {policy}; "
            f"{so_far}): CONFIG SET maxmemory-policy noeviction"
        )
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        found.append(
            "Redis could not save its data to disk the last time, and may take no writes until it can: its log says "
            "why (often the disk is full)"
        )
    return found


def read_warnings(redis: Redis) -> list[str]:
    """Ask the server; nothing for a user without the right to ``INFO``.

    Raises:
        redis.RedisError: the server does not answer.
    """
    info: dict[str, Any] = {}
    try:
        for section in SECTIONS:
            info |= redis.info(section)
    except NoPermissionError:
        return []
    return server_warnings(info)
