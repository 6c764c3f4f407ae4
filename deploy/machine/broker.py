"""Check of the broker before the fleet starts: an unusable one is refused with the cause and the cure."""

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
    """Check that the broker answers and is of a supported kind: not a Redis Cluster.

    Raises:
        BrokerUnavailable: it does not answer or is not supported; names the broker, the cause and the cure.
        ConfigError: its URL is incomplete.
    """
    at = shown(settings.redis_url)
    try:
        client = connect(settings, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    except ValueError:  # its text may quote the password from the URL
        raise BrokerUnavailable(f"{at} is no address of a Redis; allowed: redis://, rediss://, sentinel://") from None
    try:
        cluster = client.info("cluster").get("cluster_enabled")
    except NoPermissionError:  # it answers, and its ACL denies INFO
        cluster = False
    except redis.RedisError as error:
        raise BrokerUnavailable(trouble(error, settings)) from None
    finally:
        close(client)
    if cluster:
        raise BrokerUnavailable(
            f"{at} is a Redis Cluster, which Celery cannot use as a broker: use a single Redis "
            "or one with replicas; to scale out, use one Redis for each group of models"
        )
