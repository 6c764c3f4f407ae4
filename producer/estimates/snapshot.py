"""The snapshot that an estimate is made from: the queues, replicas and measured rates of a job's model at one moment.

:func:`snapshot` is its only builder. Three adapters feed it: :func:`read_snapshot` from what a client reads in Redis,
``autoscaler/estimates/estimate_calibration.py`` from what the autoscaler has just published, and
``simulator/results/estimates.py`` from the simulated fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..contract import heartbeat, keys
from ..contract.fleet.reserved_slots import left_to_others
from ..contract.heartbeat import Heartbeat, WorkerState
from ..contract.published import PublishedDemand, PublishedSizes
from ..contract.queue.lanes import jobs_in_lanes
from .wait_time import Ahead, Snapshot

if TYPE_CHECKING:
    from ..contract.fleet.settings import Settings

OVERDUE_S = heartbeat.INTERVAL_S
"""When a replica is expected to be ready that has been loading for longer than was measured: its next heartbeat may say
so."""


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
        (length if isinstance(length, int) else 0) + jobs_in_lanes(more)
        for length, more in zip(plain, laned, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Replica:
    """A worker of the model that takes jobs, or will once it is ``ready``; one that drains is none.

    ``started_at`` is in seconds by the clock of the snapshot's ``now``; ``jobs_per_s`` is 0 when not measured.
    """

    ready: bool
    started_at: float
    running: int = 0
    capacity: int = 0
    jobs_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelMeasures:
    """What the autoscaler knows of a model.

    ``arrivals_per_s`` is by tier; ``jobs_per_s`` is what one replica does, ``load_s`` how long it loads, ``run_s`` how
    long a job runs, each 0 when not measured. ``suspects`` are queued. ``blocker`` is what keeps a further replica from
    being started, empty when nothing does.
    """

    arrivals_per_s: Mapping[str, float] = field(default_factory=dict)
    jobs_per_s: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0
    blocker: str = ""
    suspects: int = 0


def snapshot(
    now: float, settings: Settings, model: str, place: Place, replicas: Sequence[Replica], measures: ModelMeasures
) -> Snapshot:
    """The snapshot for a job at ``place``.

    Estimates and their errors are both computed from this snapshot. With separate builders, an error could be recorded
    under another calibration bucket than the estimate that it corrects.

    Args:
        now: seconds by any clock.
        measures: tiers that ``model`` does not have are passed over.
    """
    of = settings.model(model)
    arrivals_per_s = {tier: measures.arrivals_per_s.get(tier, 0.0) for tier in of.tiers}
    serving = [replica for replica in replicas if replica.ready]
    rate = measures.jobs_per_s or _mean([replica.jobs_per_s for replica in serving])
    running = sum(replica.running for replica in serving) / max(1, len(serving))
    return Snapshot(
        tier=place.tier,
        tiers=[
            Ahead(
                tier,
                settings.tiers[tier].target_wait_s,
                place.ahead if tier == place.tier else length,
                arrivals_per_s[tier],
            )
            for tier, length in zip(of.tiers, place.lengths, strict=True)
            if tier == place.tier or not place.by_deadline
        ],
        ready_in_s=[
            0.0 if replica.ready else max(OVERDUE_S, replica.started_at + measures.load_s - now) for replica in replicas
        ],
        places=of.max_concurrency,
        free=sum(max(0, replica.capacity - replica.running) for replica in serving),
        left=left_to_others(settings, place.tier, of.slots, arrivals_per_s) * len(serving),
        jobs_per_s=rate,
        # The autoscaler notices the first job in its next round.
        load_s=measures.load_s + settings.scaling.interval_s if measures.load_s else 0.0,
        run_s=measures.run_s or (max(1.0, running) / rate if rate else 0.0),
        blocker=measures.blocker,
        over_share=place.over_share,
        batches=not of.slots,
        suspects=measures.suspects,
    )


def replicas_of(model: str, beats: Sequence[Heartbeat]) -> list[Replica]:
    """The model's replicas, by their heartbeats."""
    return [
        Replica(beat.state is WorkerState.READY, beat.started_at, len(beat.running), beat.capacity, beat.jobs_per_s)
        for beat in beats
        if beat.model == model and beat.state is not WorkerState.DRAINING
    ]


def measures_of(demand: PublishedDemand, blocker: str) -> ModelMeasures:
    """What the autoscaler knows of a model, from what it publishes.

    Args:
        blocker: what keeps a further replica from being started; empty when nothing does.
    """
    arrivals_per_s = {tier.tier: tier.arrivals_per_s for tier in demand.tiers}
    return ModelMeasures(arrivals_per_s, demand.jobs_per_s, demand.load_s, demand.run_s, blocker, demand.suspects)


def read_snapshot(
    now: float, sizes: object, settings: Settings, model: str, place: Place, beats: Sequence[Heartbeat]
) -> Snapshot:
    """The snapshot for a job at ``place``, from what a client reads.

    Args:
        now: Unix seconds.
        sizes: what is stored at ``keys.sizes``.
    """
    published = PublishedSizes.parse(sizes)
    size = published.models.get(model) if published else None
    measures = measures_of(size.demand, size.hold) if size else ModelMeasures()
    return snapshot(now, settings, model, place, replicas_of(model, beats), measures)


def _mean(rates: Sequence[float]) -> float:
    known = [rate for rate in rates if rate > 0]
    return sum(known) / len(known) if known else 0.0
