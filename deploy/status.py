"""The status of the fleet, read from Redis alone and so available on every machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.launchers import records
from producer.contract import heartbeat, keys
from producer.contract.heartbeat import Heartbeat
from producer.contract.published import JournalEntry, NodeSummary, PublishedDevice, PublishedNode
from producer.contract.server.redis_url import shown
from producer.contract.server.server_warnings import read_warnings
from scheduler.queue_lengths import ModelQueues, observe

from . import strays
from .machine import flower, gateway
from .strays import Stray

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings

DECISIONS = 8


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The fleet at Unix time ``at``. ``redis`` is the broker's URL without its secrets.

    - ``flower`` and ``gateway``: their URLs when they run on this machine, else None.
    - ``leader``: the autoscaler that leads, None without one.
    - ``batches``: the number of open batches of the Batch API.
    - ``devices`` and ``node``: the devices and their machine (host, devices by state, memory in GB), as the leader last
      published them.
    - ``strays``: jobs that no worker of the fleet will find.
    - ``warnings``: what is risky about the server, such as that it evicts keys.
    """

    at: float
    redis: str
    flower: str | None
    gateway: str | None
    batches: int
    leader: str | None
    queues: list[ModelQueues]
    workers: list[Heartbeat]
    node: NodeSummary | None
    devices: Sequence[PublishedDevice]
    decisions: list[JournalEntry]
    strays: list[Stray]
    warnings: list[str]


def read_status(redis: Redis, settings: Settings) -> FleetStatus:
    """Read the status of the fleet once.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    with redis.pipeline(transaction=False) as pipe:
        pipe.get(keys.leader())
        pipe.get(keys.devices())
        pipe.zcard(keys.open_batches())
        pipe.xrevrange(keys.decisions(), count=DECISIONS)
        leader, devices, batches, decisions = pipe.execute()
    node = PublishedNode.parse(devices)
    here = {record.name for record in records.read_all(settings.state_dir / "run")}
    return FleetStatus(
        at=time.time(),
        redis=shown(settings.redis_url),
        flower=flower.url(settings) if "flower" in here else None,
        gateway=f"{gateway.url(settings)}/v1" if "gateway" in here else None,
        batches=batches,
        leader=leader.decode() if leader else None,
        queues=list(observe(redis, settings).values()),
        workers=heartbeat.read_all(redis),
        devices=node.devices if node else (),
        node=node,
        decisions=[JournalEntry.of_fields(fields) for _, fields in decisions],
        strays=strays.find(redis, settings),
        warnings=read_warnings(redis),
    )
