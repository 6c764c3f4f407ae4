"""The broker, looked at before anything is started on it: a wrong one is told apart here, with its cure."""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

from producer.contract.connection import close, connect
from producer.contract.errors import BrokerUnavailable
from producer.contract.redis_errors import trouble
from producer.contract.redis_url import shown
from producer.contract.settings import Settings

CONNECT_S = 3.0


def check(settings: Settings) -> None:
    """See that it answers, and that it is a kind that the fleet can use.

    Raises:
        BrokerUnavailable: naming the broker, the cause and the cure.
        ConfigError: its address says too little.
    """
    at = shown(settings.redis_url)
    try:
        client = connect(settings, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    except ValueError:  # its text may quote a part of the URL
        raise BrokerUnavailable(f"{at} is no address of a Redis; allowed: redis://, rediss://, sentinel://") from None
    try:
        cluster = client.info("cluster").get("cluster_enabled")
    except NoPermissionError:  # it answers, and lets its users ask for little
        cluster = False
    except redis.RedisError as error:
        raise BrokerUnavailable(trouble(error, settings)) from None
    finally:
        close(client)
    if cluster:
        raise BrokerUnavailable(
            f"{at} is a Redis Cluster, which Celery cannot use as a broker: use a single Redis "
            "or one with replicas, and to scale, one for each group of models"
        )
