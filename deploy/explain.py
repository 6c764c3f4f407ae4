"""Why the fleet has the workers that it has, read from Redis alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from autoscaler.devices import Device
from autoscaler.observation import Observation
from autoscaler.policy import named
from autoscaler.roster import Phase, Worker, call
from autoscaler.views import SIZES, Sizes, Wanted
from autoscaler.whatif import OneMore, one_more
from producer import heartbeat, keys
from producer.errors import ConfigError
from producer.heartbeat import Heartbeat

from .status import Decision, decision

if TYPE_CHECKING:
    from redis import Redis

    from producer.settings import Settings

LOOKED_THROUGH = 1000
"""Decisions; as many as the journal keeps."""
SHOWN = 5
DEVICES = TypeAdapter(list[Device])


@dataclass(frozen=True, slots=True)
class Served:
    """One worker, and why it was started; empty when that is not in the journal any more."""

    worker: Heartbeat
    because: str


@dataclass(frozen=True, slots=True)
class ModelExplained:
    """One model. ``wanted`` and ``one_more`` are None when no autoscaler tells of it."""

    model: str
    wanted: Wanted | None
    workers: Sequence[Served]
    one_more: OneMore | None
    decisions: Sequence[Decision]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The fleet at Unix time ``at``, as the autoscaler sized it at ``sized_at`` by ``policy``.

    ``devices`` are the last decisions about devices, which are no model's.
    """

    at: float
    sized_at: float | None
    policy: str
    models: Sequence[ModelExplained]
    devices: Sequence[Decision]


def read(redis: Redis, settings: Settings, models: Sequence[str]) -> Explanation:
    """Look once.

    Raises:
        redis.RedisError: when the broker does not answer.
    """
    with redis.pipeline(transaction=False) as pipe:
        pipe.get(keys.sizes())
        pipe.get(keys.devices())
        pipe.xrevrange(keys.decisions(), count=LOOKED_THROUGH)
        told, node, entries = pipe.execute()
    journal = [decision(entry) for _, entry in entries]
    beats = heartbeat.read_all(redis)
    sizes = _sizes(told)
    seen = _observation(settings, sizes, json.loads(node), beats) if sizes and node else None
    return Explanation(
        at=time.time(),
        sized_at=sizes.at if sizes else None,
        policy=sizes.policy if sizes else "",
        models=[_explained(name, sizes, seen, beats, journal) for name in models],
        devices=[one for one in journal if not one.model][:SHOWN],
    )


def _sizes(told: bytes | None) -> Sizes | None:
    try:
        return SIZES.validate_json(told) if told else None
    except ValidationError:  # an autoscaler of another version
        return None


def _observation(settings: Settings, sizes: Sizes, node: dict[str, Any], beats: Sequence[Heartbeat]) -> Observation:
    """What the autoscaler saw, as far as it is told."""
    known = {one.name for one in fields(Device)}
    devices = DEVICES.validate_python([{k: v for k, v in one.items() if k in known} for one in node["devices"]])
    workers = call(beats, [], node["host"])
    heard = {worker.name for worker in workers}
    for one in node["devices"]:  # those that have not spoken yet hold their devices, too
        workers += [
            Worker(name, name.rpartition("-")[0], one["id"], Phase.STARTING, True, sizes.at)
            for name in one["workers"]
            if name not in heard
        ]
    demands = {name: wanted.demand for name, wanted in sizes.models.items() if name in settings.models}
    return Observation(sizes.at, settings, demands, devices, workers)


def _explained(
    model: str, sizes: Sizes | None, seen: Observation | None, beats: Sequence[Heartbeat], journal: Sequence[Decision]
) -> ModelExplained:
    own = [one for one in journal if one.model == model]
    because = {one.worker: one.reason for one in reversed(own) if one.action == "start"}
    return ModelExplained(
        model,
        sizes.models.get(model) if sizes else None,
        [Served(beat, because.get(beat.name, "")) for beat in beats if beat.model == model],
        _one_more(seen, sizes, model),
        own[:SHOWN],
    )


def _one_more(seen: Observation | None, sizes: Sizes | None, model: str) -> OneMore | None:
    if seen is None or sizes is None or model not in seen.demands:
        return None
    try:
        return one_more(seen, named(sizes.policy), model)
    except ConfigError:  # a policy that only the autoscaler's version has
        return None
