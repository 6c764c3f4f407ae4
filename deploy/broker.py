"""The broker, looked at before anything is started on it: a wrong one is told apart here, with its cure."""

from __future__ import annotations

import redis

from producer.address import shown
from producer.errors import BrokerUnavailable

CONNECT_S = 3.0


def check(url: str) -> None:
    """See that it answers, and that it is a kind that the fleet can use.

    Raises:
        BrokerUnavailable: naming the broker, the cause and the cure.
    """
    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    except ValueError:  # its text may quote a part of the URL
        raise BrokerUnavailable(f"{shown(url)} is no address of a Redis; allowed: redis://, rediss://") from None
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
