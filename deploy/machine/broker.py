"""Check of the broker before the fleet starts: an unusable one is refused with the cause and the cure."""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

from producer.contract.errors import BrokerUnavailable
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import close, connect
from producer.contract.server.redis_errors import trouble
from producer.contract.server.redis_url import shown
from producer.contract.server.server_warnings import read_warnings

CONNECT_S = 3.0


def check(settings: Settings) -> list[str]:
    """Check that the broker answers and has what Stoker needs. Returns what is risky about it though it serves.

    Raises:
        BrokerUnavailable: it does not answer; names the broker, the cause and the cure.
        UnsuitableServer: it lacks what Stoker needs.
        ConfigError: its URL is incomplete.
    """
    at = shown(settings.redis_url)
    try:
        client = connect(settings, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    except ValueError:  # its text may quote the password from the URL
        raise BrokerUnavailable(f"{at} is no address of a Redis; allowed: redis://, rediss://, sentinel://") from None
    try:
        client.ping()
        return read_warnings(client)
    except NoPermissionError:
        return []  # it answers
    except redis.RedisError as error:
        raise BrokerUnavailable(trouble(error, settings)) from None
    finally:
        close(client)
