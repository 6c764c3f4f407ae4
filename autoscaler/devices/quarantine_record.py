"""The quarantine record: the health of faulty devices, kept in Redis for the autoscaler's successor and operators."""

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
    """The device to release is not in quarantine, or its name is ambiguous."""


def read(redis: Redis) -> dict[str, Health]:
    """The recorded health of devices, by :attr:`Device.key`. An invalid entry is logged and skipped."""
    known = {}
    for found, told in redis.hgetall(keys.quarantine()).items():
        key = text(found)
        try:
            known[key] = HEALTH.validate_json(told)
        except ValidationError:
            log.warning("the quarantine record of %s is ignored: it is not of this version", key)
    return known


def write(redis: Redis, key: str, health: Health) -> None:
    """Write a device's health; delete its entry when it is well and has no history."""
    if health == WELL:
        redis.hdel(keys.quarantine(), key)
    else:
        redis.hset(keys.quarantine(), key, HEALTH.dump_json(health).decode())


def release(redis: Redis, host: str, device: str) -> Health:
    """Release a device from quarantine. The autoscaler uses it from its next reading on, unless that finds a fault.

    Args:
        host: the device's machine; empty for any machine.
        device: its UUID, or its name, such as ``cuda:1``.

    Returns:
        Its health in quarantine, with the reason.

    Raises:
        NotInQuarantine: no device matches, or several; the message lists those in quarantine.
    """
    known = {key: one for key, one in read(redis).items() if one.fault is not None}
    found = [key for key, one in known.items() if device in (key, one.device) and (not host or one.host in (host, ""))]
    if len(found) != 1:
        out = ", ".join(sorted(f"{one.device or key} of {one.host} ({key})" for key, one in known.items())) or "none"
        what = "names several devices" if found else "is not in quarantine"
        raise NotInQuarantine(f"{device} of {host or 'any machine'} {what}; those that are: {out}")
    # Written even when it equals WELL: the autoscaler recognises the release by the entry.
    redis.hset(keys.quarantine(), found[0], HEALTH.dump_json(known[found[0]].pardoned).decode())
    return known[found[0]]
