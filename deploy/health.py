"""``python -m deploy.health ROLE``: whether this container does its work, for Docker's health checks.

Exit codes: 0 when it does, 1 when it does not, with the reason on stdout.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import redis
from redis.exceptions import NoPermissionError

from producer.contract import heartbeat, keys
from producer.contract.connection import connect
from producer.contract.errors import StokerError
from producer.contract.published import PublishedNode
from producer.contract.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_S = 5.0
ROLES = ("autoscaler", "worker")


def ailment(client: Redis, role: str, host: str) -> str:
    """What is wrong; empty when nothing is.

    Args:
        host: the machine, as heartbeats name it; in a container, the container's own name.

    Raises:
        redis.RedisError: when the broker does not answer.
    """
    if role == "autoscaler":
        if not client.exists(keys.leader()):
            return "no autoscaler leads"
        with contextlib.suppress(NoPermissionError):  # by rules of an older version
            node = PublishedNode.parse(client.get(keys.devices()))
            return node.failing if node else ""
        return ""
    beats = [beat for beat in heartbeat.read_all(client) if beat.host == host]
    return "" if beats else f"no worker on {host} sent a heartbeat in the last {heartbeat.TTL_S:g} s"


def main() -> int:
    """Look once."""
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role not in ROLES:
        print(f"which role? allowed: {', '.join(ROLES)}")
        return 1
    try:
        with connect(Settings.load(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
            wrong = ailment(client, role, socket.gethostname())
    except (StokerError, redis.RedisError) as error:
        wrong = str(error)
    print(wrong or "well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
