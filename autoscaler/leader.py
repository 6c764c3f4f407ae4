"""The leader lease: of several autoscalers of one fleet, one acts and the others wait."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING

from producer.contract import keys

if TYPE_CHECKING:
    from redis import Redis

RENEW = """
-- KEYS[1] the lease. ARGV[1] the holder's name, ARGV[2] milliseconds to hold it from now.
-- Returns 1 when the lease is the holder's and was renewed, 0 when it is somebody else's or nobody's.
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


class Leader:
    """One contender for the lease, which holds for ``ttl_s`` seconds after each time it was confirmed.

    ``name`` must be unique among the contenders, and is by default.
    """

    def __init__(self, redis: Redis, ttl_s: float, name: str | None = None) -> None:
        self.redis = redis
        self.ttl_s = ttl_s
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._renew = redis.register_script(RENEW)
        self._release = redis.register_script(RELEASE)

    def renew(self) -> bool:
        """Renew the lease that is held. False when it ran out, whether or not another contender has it now."""
        return bool(self._renew(keys=[keys.leader()], args=[self.name, int(self.ttl_s * 1000)]))

    def confirm(self) -> bool:
        """Renew the lease, or take it when it is free. True while this contender leads."""
        if self.renew():
            return True
        return bool(self.redis.set(keys.leader(), self.name, nx=True, px=int(self.ttl_s * 1000)))

    def holder(self) -> str:
        """Who leads now; empty when nobody does."""
        found = self.redis.get(keys.leader())
        return found.decode() if isinstance(found, bytes) else str(found or "")

    def release(self) -> None:
        """Give the lease up, so that a waiting contender need not wait for it to run out."""
        self._release(keys=[keys.leader()], args=[self.name])
