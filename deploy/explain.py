"""Explanation of the fleet's workers: wanted replicas, reasons and decisions, read from Redis alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from producer.contract import heartbeat, keys
from producer.contract.heartbeat import Heartbeat
from producer.contract.published import JournalEntry, PublishedDevice, PublishedNode, PublishedSize, PublishedSizes

if TYPE_CHECKING:
    from redis import Redis


LOOKED_THROUGH = 1000
"""Decisions read: the length at which the journal is trimmed."""
SHOWN = 5
OTHERS_GB = 0.5
"""Memory of a device in GB above which its other users are told: the driver itself uses some."""


@dataclass(frozen=True, slots=True)
class WorkerOrigin:
    """A worker and the reason for its start, which is empty when the journal no longer holds it.

    ``managed`` is False for a worker that was started by hand, which no autoscaler stops.
    """

    worker: Heartbeat
    because: str
    managed: bool = True


@dataclass(frozen=True, slots=True)
class ModelExplained:
    """A model, its workers and its last decisions. ``wanted`` is None when no autoscaler has published it."""

    model: str
    wanted: PublishedSize | None
    workers: Sequence[WorkerOrigin]
    decisions: Sequence[JournalEntry]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The fleet at Unix time ``at``, as the autoscaler sized it at Unix time ``sized_at`` by ``policy``.

    ``devices`` are the last decisions about devices, which belong to no model; ``shared`` are the devices whose memory
    is used by others than workers.
    """

    at: float
    sized_at: float | None
    policy: str
    models: Sequence[ModelExplained]
    devices: Sequence[JournalEntry]
    shared: Sequence[PublishedDevice] = ()


def explain_fleet(redis: Redis, models: Sequence[str]) -> Explanation:
    """Read the explanation of some models once.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    with redis.pipeline(transaction=False) as pipe:
        pipe.get(keys.sizes())
        pipe.xrevrange(keys.decisions(), count=LOOKED_THROUGH)
        pipe.get(keys.devices())
        told, entries, node = pipe.execute()
    journal = [JournalEntry.of_fields(entry) for _, entry in entries]
    beats = heartbeat.read_all(redis)
    sizes = PublishedSizes.parse(told)
    seen = PublishedNode.parse(node)
    return Explanation(
        at=time.time(),
        sized_at=sizes.at if sizes else None,
        policy=sizes.policy if sizes else "",
        models=[_explained(name, sizes, beats, journal) for name in models],
        devices=[one for one in journal if not one.model][:SHOWN],
        shared=_shared(seen.devices if seen else (), {beat.pid for beat in beats}),
    )


def _shared(devices: Sequence[PublishedDevice], workers: Collection[int]) -> list[PublishedDevice]:
    """The devices with other users than ``workers`` (pids), which are left out of them."""
    return [
        one.model_copy(update={"others": {pid: what for pid, what in one.others.items() if pid not in workers}})
        for one in devices
        if one.others_gb >= OTHERS_GB
    ]


def _explained(
    model: str, sizes: PublishedSizes | None, beats: Sequence[Heartbeat], journal: Sequence[JournalEntry]
) -> ModelExplained:
    own = [one for one in journal if one.model == model]
    because = {one.worker: one.reason for one in reversed(own) if one.action == "start"}
    return ModelExplained(
        model,
        sizes.models.get(model) if sizes else None,
        [
            WorkerOrigin(beat, because.get(beat.name, ""), bool(beat.launched_by))
            for beat in beats
            if beat.model == model
        ],
        own[:SHOWN],
    )
