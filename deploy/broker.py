"""The broker, looked at before anything is started on it: a wrong one is told apart here, with its cure."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis

from producer.errors import BrokerUnavailable

CONNECT_S = 3.0


def shown(url: str) -> str:
    """The URL as it may be shown: without user, password and options."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    at = f"{host}:{parts.port}" if parts.port else host
    hidden = "***@" if parts.username or parts.password else ""
    return f"{parts.scheme}://{hidden}{at}{parts.path}"


def check(url: str) -> None:
    """See that it answers, and that it is a kind that the fleet can use.

    Raises:
        BrokerUnavailable: naming the broker, the cause and the cure.
    """
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    except ValueError as error:
        raise BrokerUnavailable(f"{shown(url)} is no address of a Redis: {error}") from None
    try:
        cluster = client.info("cluster").get("cluster_enabled")
    except redis.AuthenticationError as error:
        raise BrokerUnavailable(f"Redis at {shown(url)} refuses the password: {error}") from None
    except redis.RedisError as error:
        raise BrokerUnavailable(
            f"Redis at {shown(url)} does not answer ({error}): start it, or correct redis.url in fleet.toml, "
            "STOKER_REDIS__URL or REDIS_URL; unset them to let 'stoker up' run a server of its own"
        ) from None
    finally:
        client.close()
    if cluster:
        raise BrokerUnavailable(
            f"{shown(url)} is a Redis Cluster, which Celery cannot use as a broker: use a single Redis "
            "or one with replicas, and to scale, one for each group of models"
        )
