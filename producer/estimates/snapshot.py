"""What a job finds, from what Redis says of its model: sizes, heartbeats, lengths of queues."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ..contract import keys
from ..contract.heartbeat import Heartbeat, WorkerState
from ..contract.reserved_slots import left_to_others
from .wait_time import Ahead, Errors, Situation

if TYPE_CHECKING:
    from ..contract.settings import Settings

START_S = 1.0
"""Until the autoscaler has noticed a first job and started a worker."""


@dataclass(frozen=True, slots=True)
class Place:
    """A job's tier, how many of it are before it, and how many jobs wait in each queue of the model. With
    ``by_deadline`` it goes by a deadline of its own: what is due first goes first, of other tiers as well."""

    tier: str
    ahead: int
    lengths: Sequence[int]
    over_share: bool = False
    exact: bool = True
    by_deadline: bool = False


class _Rate(BaseModel):
    tier: str
    arrivals_per_s: float = 0.0


class _Demand(BaseModel):
    tiers: list[_Rate] = []
    jobs_per_s: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0


class _Wanted(BaseModel):
    demand: _Demand = _Demand()
    hold: str = ""


class _Sizes(BaseModel):
    """What the autoscaler publishes, as far as it is needed here (``autoscaler/published_view.py``)."""

    models: dict[str, _Wanted] = {}


def ask_lengths(pipe: Any, settings: Settings, model: str) -> None:
    """Ask for what :func:`lengths` reads, in a pipeline of either kind of client."""
    queues = [keys.queue(model, tier) for tier in settings.model(model).tiers]
    pipe.hmget(keys.lanes(model), [f"jobs:{queue}" for queue in queues])
    for queue in queues:
        pipe.llen(queue)


def lengths(replies: Sequence[Any]) -> list[int]:
    """Jobs waiting in each queue, those in tenants' lanes too. What cannot be counted counts as none."""
    laned, *plain = replies
    laned = laned if isinstance(laned, list) else [None] * len(plain)
    return [
        (length if isinstance(length, int) else 0) + int(more or 0) for length, more in zip(plain, laned, strict=True)
    ]


def situation(sizes: object, settings: Settings, model: str, place: Place, beats: Sequence[Heartbeat]) -> Situation:
    """What a job at that place finds.

    Args:
        sizes: what is stored at ``keys.sizes``.
    """
    wanted = _Wanted()
    if isinstance(sizes, bytes):
        with contextlib.suppress(ValidationError):  # of another version: then nothing is known of rates
            wanted = _Sizes.model_validate_json(sizes).models.get(model, wanted)
    demand = wanted.demand
    rates = {rate.tier: rate.arrivals_per_s for rate in demand.tiers}
    now = time.time()
    own = [beat for beat in beats if beat.model == model and beat.state is not WorkerState.DRAINING]
    serving = [beat for beat in own if beat.state is WorkerState.READY]
    rate = demand.jobs_per_s or max((beat.jobs_per_s for beat in serving), default=0.0)
    running = sum(len(beat.running) for beat in serving) / max(1, len(serving))
    return Situation(
        tier=place.tier,
        tiers=[
            Ahead(
                each,
                settings.tiers[each].target_wait_s,
                place.ahead if each == place.tier else length,
                rates.get(each, 0.0),
            )
            for each, length in zip(settings.model(model).tiers, place.lengths, strict=True)
            if each == place.tier or not place.by_deadline
        ],
        ready_in_s=[
            0.0 if beat.state is WorkerState.READY else max(START_S, beat.started_at + demand.load_s - now)
            for beat in own
        ],
        places=settings.model(model).max_concurrency,
        free=sum(max(0, beat.capacity - len(beat.running)) for beat in serving),
        left=left_to_others(settings, place.tier, settings.model(model).slots, rates) * len(serving),
        jobs_per_s=rate,
        load_s=demand.load_s + START_S if demand.load_s else 0.0,
        run_s=demand.run_s or (max(1.0, running) / rate if rate else 0.0),
        hindrance=wanted.hold,
        over_share=place.over_share,
        batches=not settings.model(model).slots,
    )


def learned(stored: object) -> Errors:
    """What is stored at ``keys.estimates``: how far the model's estimates were off."""
    errors = Errors()
    if isinstance(stored, bytes):
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # of another version
            errors.merge(json.loads(stored))
    return errors
