"""``python -m deploy.health ROLE``: the health check of a container, for Docker.

Exit codes: 0 when the container is healthy, 1 when it is not, with the reason on stdout.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import redis
from redis.exceptions import NoPermissionError

from producer.contract import heartbeat, keys
from producer.contract.errors import StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.published import PublishedNode
from producer.contract.server.connection import connect

if TYPE_CHECKING:
    from redis import Redis

TIMEOUT_S = 5.0
ROLES = ("autoscaler", "worker")


def problem(client: Redis, role: str, host: str) -> str:
    """The reason why a role is not healthy; empty when it is.

    Args:
        host: the machine's name in heartbeats; in a container, the container's name.

    Raises:
        redis.RedisError: the broker does not answer.
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
    """Check the role named on the command line, print the result, and return the exit code."""
    role = sys.argv[1] if len(sys.argv) == 2 else ""
    if role not in ROLES:
        print(f"no role {role!r}; allowed: {', '.join(ROLES)}")
        return 1
    try:
        with connect(Settings.load(), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
            found = problem(client, role, socket.gethostname())
    except (StokerError, redis.RedisError) as error:
        found = str(error)
    print(found or "healthy")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
