"""Connecting to Redis: a single server by its URL, or whichever server Sentinel says is the master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.sentinel import SentinelConnectionPool

from ..errors import ConfigError
from .redis_url import options_of, without_options
from .server_requirements import ServerQuestion

if TYPE_CHECKING:
    from ..fleet.settings import Settings

SENTINEL_PORT = 26379

MOST_CONNECTIONS = 64
"""Connections of one asyncio client; commands beyond that wait for a free one."""

SOCKET_TIMEOUT_S = 10.0
"""How long Redis may take to answer, in seconds; a connection without an answer until then counts as broken. Always
set: the default of redis-py is none before version 8, and 5 s from then on."""

CONNECT_TIMEOUT_S = 5.0
"""How long a connection may take to be made, in seconds."""

_TIMEOUTS = {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": CONNECT_TIMEOUT_S}


def connect(settings: Settings, **options: Any) -> redis.Redis:
    """A client of the fleet's Redis; ``options`` are redis-py's. Options in the URL go before them.

    A command that blocks waits for :func:`block_ms` at most. Commands raise ``UnsuitableServer`` when the server that
    they come to lacks what Stoker needs.
    """
    question = ServerQuestion(settings.redis_url)
    options = {**_TIMEOUTS, "redis_connect_func": question.ask, **options, **options_of(settings.redis_url)}
    if not by_sentinel(settings):
        return redis.Redis.from_url(settings.redis_url, **options)
    hosts, login = _sentinels(settings.redis_url)
    # Asking for the master must fail fast: the sentinel asked may be gone with the old one.
    sentinel = redis.Sentinel(hosts, sentinel_kwargs={"socket_timeout": 1.0})
    client: redis.Redis = sentinel.master_for(_master(settings), **login, **options)
    return client


def connect_async(settings: Settings, **options: Any) -> redis.asyncio.Redis:
    """The same for asyncio."""
    question = ServerQuestion(settings.redis_url)
    options = {**_TIMEOUTS, "redis_connect_func": question.ask_async, **options, **options_of(settings.redis_url)}
    if not by_sentinel(settings):
        # However much one loop does at once, Redis is one thread: more connections would only cost.
        pooled = {"max_connections": MOST_CONNECTIONS, "timeout": None, **options}
        pool = redis.asyncio.BlockingConnectionPool.from_url(settings.redis_url, **pooled)
        return redis.asyncio.Redis.from_pool(pool)
    hosts, login = _sentinels(settings.redis_url)
    sentinel = redis.asyncio.Sentinel(hosts, sentinel_kwargs={"socket_timeout": 1.0})
    client: redis.asyncio.Redis = sentinel.master_for(_master(settings), **login, **options)
    return client


def block_ms(client: redis.Redis | redis.asyncio.Redis, wait_s: float) -> int:
    """The BLOCK of a command that is to wait for ``wait_s`` seconds, in ms: at most half of the socket timeout.

    The other half is for the answer to arrive. Without that an ordinary end of the wait looks like a dead connection.

    Args:
        client: made by :func:`connect` or :func:`connect_async`.
    """
    timeout_s: float | None = client.connection_pool.connection_kwargs["socket_timeout"]
    return max(1, int(1000 * (wait_s if timeout_s is None else min(wait_s, timeout_s / 2))))


def database(client: redis.Redis | redis.asyncio.Redis) -> int:
    """The number of the database that a client uses, which is part of the names of Celery's channels."""
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def close(client: redis.Redis) -> None:
    """Give up a client's connections, to the sentinels as well."""
    pool = client.connection_pool
    client.close()
    for sentinel in pool.sentinel_manager.sentinels if isinstance(pool, SentinelConnectionPool) else ():
        sentinel.close()


async def close_async(client: redis.asyncio.Redis) -> None:
    """The same for asyncio."""
    pool = client.connection_pool
    await client.aclose()
    if isinstance(pool, AsyncSentinelConnectionPool):
        await pool.disconnect()
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def broker_url(settings: Settings) -> str:
    """The URL as Celery takes it; its options are in :func:`transport_options`."""
    return without_options(settings.redis_url)


def transport_options(settings: Settings) -> dict[str, Any]:
    """What Celery has to be told beside the URL."""
    options = options_of(settings.redis_url)
    options.pop("max_connections", None)  # of our clients: a worker's transport needs as many as it has queues
    return {**options, "master_name": _master(settings)} if by_sentinel(settings) else options


def has_own_user(settings: Settings) -> bool:
    """Whether the URL names a user other than Redis's default one, whose rights may be limited (``stoker acl``)."""
    return urlsplit(settings.redis_url.split(";")[0]).username not in (None, "", "default")


def by_sentinel(settings: Settings) -> bool:
    """Whether the master is found by way of Sentinel."""
    return settings.redis_url.startswith("sentinel://")


def _master(settings: Settings) -> str:
    if settings.redis.sentinel_master is None:
        raise ConfigError("redis.url names sentinels: set redis.sentinel_master to the name of the group they watch")
    return settings.redis.sentinel_master


def _sentinels(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Hosts of the sentinels, and how to log in to the master, from ``sentinel://:password@host:port/db;...``."""
    parts = [urlsplit(each) for each in url.split(";")]
    hosts = [(part.hostname or "localhost", part.port or SENTINEL_PORT) for part in parts]
    first = parts[0]
    login: dict[str, Any] = {"db": int(first.path.strip("/") or 0)}
    if first.password:
        login["password"] = unquote(first.password)
    if first.username:
        login["username"] = unquote(first.username)
    return hosts, login
