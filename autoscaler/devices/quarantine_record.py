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


def read(redis: Redis, host: str) -> dict[str, Health]:
    """What is remembered of the devices of a machine. An entry that cannot be read is passed over."""
    known = {}
    for found, told in redis.hgetall(keys.quarantine(host)).items():
        name = text(found)
        try:
            known[name] = HEALTH.validate_json(told)
        except ValidationError:
            log.warning("what is remembered of %s is passed over: it is none of this version", name)
    return known


def write(redis: Redis, host: str, device: str, health: Health) -> None:
    """Remember, or forget when there is nothing to remember."""
    if health == WELL:
        redis.hdel(keys.quarantine(host), device)
    else:
        redis.hset(keys.quarantine(host), device, HEALTH.dump_json(health).decode())


def release(redis: Redis, host: str, device: str) -> Health:
    """Say that a device is well. The autoscaler takes it back at its next look, unless it sees that it is not.

    Returns:
        What it was out for.

    Raises:
        NotInQuarantine: naming the devices that are.
    """
    known = {name: one for name, one in read(redis, host).items() if one.fault is not None}
    if device not in known:
        out = ", ".join(sorted(known)) or "none"
        raise NotInQuarantine(f"{device} of {host} is not in quarantine; those that are: {out}")
    # Also when nothing is left to remember: the autoscaler must see that somebody wrote.
    redis.hset(keys.quarantine(host), device, HEALTH.dump_json(known[device].pardoned).decode())
    return known[device]
