"""History: what the policies that look ahead remember of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..roster import Phase
from .capacity import Capacity
from .forecast import TICK_S, Forecast, Outlook

if TYPE_CHECKING:
    from ..roster import Worker
    from .demand import Demand

SETTLED_S = 60.0
"""Seconds after loading from which a replica's rate counts, if it has by then done as many jobs as it holds; before, it
is still filling up."""
SHORTEST_HORIZON_S = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """Capacity and forecasts of one model, as of Unix time ``at``."""

    at: float
    capacity: Capacity = field(default_factory=Capacity)
    tiers: Mapping[str, Forecast] = field(default_factory=dict)

    def outlook(self, tier: str, horizon_s: float) -> Outlook:
        """The expected arrivals of a tier over the next ``horizon_s`` seconds."""
        return self.tiers[tier].outlook(horizon_s) if tier in self.tiers else Outlook()


def horizon_s(load_s: float) -> float:
    """The horizon of forecasts: until a replica that is started now has served for as long as it loaded."""
    return max(SHORTEST_HORIZON_S, 2 * load_s)


def remember(before: History | None, now: float, demand: Demand, workers: Sequence[Worker], full: int) -> History:
    """The history after another observation; of several in a tick the first counts.

    Args:
        workers: of the model.
        full: jobs that a full replica runs at a time.
    """
    if before is not None and 0 <= now - before.at < TICK_S - 1e-6:
        return before
    passed = now - before.at if before is not None else 0.0
    settled = [
        (worker.batch_size, worker.jobs_per_s)
        for worker in workers
        if worker.phase is Phase.READY and worker.running and _settled(worker, now)
    ]
    ahead = horizon_s(demand.load_s)
    known = before.tiers if before is not None else {}
    tiers = {
        tier.tier: known[tier.tier].after(now, tier.arrived, ahead)
        if tier.tier in known
        else Forecast(now, tier.arrived)
        for tier in demand.tiers
    }
    # The stored rate stands for a full replica until replicas have been observed. Later it does not count: a replica
    # that has just started also writes it, before its own rate has settled.
    capacity = before.capacity if before is not None else Capacity().after(0.0, [(full, demand.jobs_per_s)])
    return History(now, capacity.after(max(0.0, passed), settled), tiers)


def _settled(worker: Worker, now: float) -> bool:
    """Whether a replica's measured rate is that of a full replica. With jobs of minutes this takes longer."""
    served_s = now - worker.started_at - worker.load_s
    return served_s >= SETTLED_S and served_s * worker.jobs_per_s >= worker.batch_size
