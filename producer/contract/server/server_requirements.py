"""What Stoker needs of the server behind ``redis.url``, asked of each connection when it is made.

``HELLO`` is asked, as it tells version and mode in one round trip, needs no right to see more (as ``INFO`` would), and
is answered also by a server that is loading or busy. A server that takes over in a failover is asked as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from ..errors import UnsuitableServer
from .redis_errors import cannot_serve
from .redis_url import shown

if TYPE_CHECKING:
    from redis import Redis

LEAST_VERSION = (7, 0)
"""Of Redis: the first with flags of scripts (``#!lua flags=``) and selectors of ACLs. Every Valkey has them."""

CURE = "upgrade it, or leave redis.url and REDIS_URL out, and 'stoker up' starts a server that comes with Stoker"


def unmet(server: Mapping[str, str]) -> str:
    """What keeps a server from being used, and the cure; empty when nothing does.

    Args:
        server: the reply to ``HELLO``; empty when the server does not know the command.
    """
    mode = server.get("mode", "standalone")
    if mode == "cluster":
        return (
            "is a Redis Cluster, which Celery cannot use as a broker: use a single Redis or one with replicas; "
            "to scale out, use one Redis for each group of models"
        )
    if mode == "sentinel":
        return "is a Sentinel, not a Redis: write sentinel:// for redis://, and set redis.sentinel_master"
    needed = f"Stoker needs Redis {'.'.join(map(str, LEAST_VERSION))} or any Valkey, or later: {CURE}"
    if not server:
        return f"is older than Redis 6, as it does not know HELLO; {needed}"
    version = server.get("version", "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers and numbers < LEAST_VERSION:
        return f"is Redis {version}; {needed}"
    return ""


class ServerQuestion:
    """Makes connections ask their server, for ``redis_connect_func`` of redis-py.

    Args:
        url: the URL of the server, for the error.

    Raises:
        UnsuitableServer: the server lacks what Stoker needs. A user without the right to ``HELLO`` is let through.
    """

    def __init__(self, url: str) -> None:
        self._at = shown(url)

    def ask(self, connection: Any) -> None:
        """Prepare a new connection as redis-py does by default, and ask."""
        connection.on_connect()
        connection.send_command("HELLO", check_health=False)
        try:
            told = connection.read_response()
        except ResponseError as error:
            told = _unanswered(error)
        if why := _unmet(told):
            connection.disconnect()
            raise UnsuitableServer(f"{self._at} {why}")

    async def ask_async(self, connection: Any) -> None:
        """The same for asyncio."""
        await connection.on_connect()
        await connection.send_command("HELLO", check_health=False)
        try:
            told = await connection.read_response()
        except ResponseError as error:
            told = _unanswered(error)
        if why := _unmet(told):
            await connection.disconnect()
            raise UnsuitableServer(f"{self._at} {why}")


def check_at_start(redis: Redis) -> None:
    """Connect once, so that a process ends at its start when its server lacks what is needed.

    A server that cannot be reached now is asked when it can be.

    Raises:
        UnsuitableServer: the server lacks what Stoker needs.
    """
    try:
        redis.ping()
    except RedisError as error:
        if not (cannot_serve(error) or isinstance(error, ResponseError)):
            raise


def _unanswered(error: ResponseError) -> dict[str, str] | None:
    return {} if "unknown command" in str(error).lower() else None


def _unmet(told: Any) -> str:
    if told is None:
        return ""
    pairs = told.items() if isinstance(told, Mapping) else zip(told[::2], told[1::2], strict=False)
    return unmet({_text(name): _text(value) for name, value in pairs})


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
