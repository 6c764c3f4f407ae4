"""The leader lease: of several autoscalers of one fleet, one acts and the others wait."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Protocol

from producer.contract import keys

if TYPE_CHECKING:
    from redis import Redis

RENEW = """
-- KEYS[1] the lease. ARGV[1] the holder's name, ARGV[2] milliseconds to hold it from now.
-- Returns 1 when the lease is the holder's and was renewed, 0 when it is free or another contender's.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""

RELEASE = """
-- KEYS[1] the lease. ARGV[1] the holder's name.
-- Returns 1 when the lease was the holder's and is free now, 0 when it was not the holder's.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""


class LeaderLease(Protocol):
    """The right to act on a fleet, for ``ttl_s`` seconds after each :meth:`confirm` or :meth:`renew`."""

    ttl_s: float

    def confirm(self) -> bool:
        """Renew the lease, or take it when it is free. True when it is held."""

    def renew(self) -> bool:
        """Renew the lease if it is held. False when it expired."""

    def holder(self) -> str:
        """The name of the contender that holds the lease; empty when it is free."""

    def release(self) -> None:
        """Give the lease up if it is held."""


class Leader:
    """A contender for the leader lease, which lasts ``ttl_s`` seconds after each confirmation.

    Args:
        name: unique among the contenders; made from host, pid and a random number by default.
    """

    def __init__(self, redis: Redis, ttl_s: float, name: str | None = None) -> None:
        self.redis = redis
        self.ttl_s = ttl_s
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._renew = redis.register_script(RENEW)
        self._release = redis.register_script(RELEASE)

    def renew(self) -> bool:
        """Renew the lease if it is held. False when it expired, whether or not another contender has it now."""
        return bool(self._renew(keys=[keys.leader()], args=[self.name, int(self.ttl_s * 1000)]))

    def confirm(self) -> bool:
        """Renew the lease, or take it when it is free. True when this contender leads."""
        if self.renew():
            return True
        return bool(self.redis.set(keys.leader(), self.name, nx=True, px=int(self.ttl_s * 1000)))

    def holder(self) -> str:
        """The name of the leader; empty when there is none."""
        found = self.redis.get(keys.leader())
        return found.decode() if isinstance(found, bytes) else str(found or "")

    def release(self) -> None:
        """Give the lease up, so that a waiting contender need not wait until it expires."""
        self._release(keys=[keys.leader()], args=[self.name])
