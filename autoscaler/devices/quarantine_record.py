"""The medical record: what is known of faulty devices, kept in Redis for the autoscaler's successor and for people."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.heartbeat import text

from .quarantine import WELL, Health

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

HEALTH = TypeAdapter(Health)


class NotInQuarantine(StokerError):
    """There is nothing to release a device from."""


def read(redis: Redis) -> dict[str, Health]:
    """What is remembered of devices, by :attr:`Device.key`. An entry that cannot be read is passed over."""
    known = {}
    for found, told in redis.hgetall(keys.quarantine()).items():
        key = text(found)
        try:
            known[key] = HEALTH.validate_json(told)
        except ValidationError:
            log.warning("what is remembered of %s is passed over: it is none of this version", key)
    return known


def write(redis: Redis, key: str, health: Health) -> None:
    """Remember, or forget when there is nothing to remember."""
    if health == WELL:
        redis.hdel(keys.quarantine(), key)
    else:
        redis.hset(keys.quarantine(), key, HEALTH.dump_json(health).decode())


def release(redis: Redis, host: str, device: str) -> Health:
    """Say that a device is well. The autoscaler takes it back at its next look, unless it sees that it is not.

    Args:
        host: the machine by which a name is understood; empty: any that has such a device in quarantine.
        device: its UUID, or its name, such as ``cuda:1``.

    Returns:
        What it was out for.

    Raises:
        NotInQuarantine: naming the devices that are.
    """
    known = {key: one for key, one in read(redis).items() if one.fault is not None}
    found = [key for key, one in known.items() if device in (key, one.device) and (not host or one.host in (host, ""))]
    if len(found) != 1:
        out = ", ".join(sorted(f"{one.device or key} of {one.host} ({key})" for key, one in known.items())) or "none"
        what = "names several devices" if found else "is not in quarantine"
        raise NotInQuarantine(f"{device} of {host or 'any machine'} {what}; those that are: {out}")
    # Also when nothing is left to remember: the autoscaler must see that somebody wrote.
    redis.hset(keys.quarantine(), found[0], HEALTH.dump_json(known[found[0]].pardoned).decode())
    return known[found[0]]
