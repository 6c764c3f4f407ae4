"""The policy ``forecast``: replicas for the forecast rate at a fixed utilisation, as NVIDIA Dynamo's planner; a
baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..history import horizon_s
from ..size import SLOWEST_PER_S, UTILISATION, Size, bounded, facts, idle
from .lookahead import remember_all

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model

    from ...observation import Memory, Observation
    from ..demand import Demand
    from ..history import History


class ForecastPolicy:
    """``ceil(rate / capacity / 0.8)`` over all tiers; queued jobs do not count."""

    name = "forecast"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """See :class:`~autoscaler.sizing.policy_registry.Policy`."""
        models, histories = seen.settings.models, remember_all(seen, memory)
        idle_s = seen.settings.scaling.idle_s
        sizes = {
            name: forecast_size(models[name], demand, histories[name], idle_s) for name, demand in seen.demands.items()
        }
        return sizes, replace(memory, histories=histories)


def forecast_size(model: Model, demand: Demand, history: History, idle_s: float) -> Size:
    """The replicas of one model."""
    if (nothing := idle(demand, idle_s)) is not None:
        return bounded(model, 0, nothing)
    per_s = history.capacity.per_s(model.max_concurrency)
    if per_s < SLOWEST_PER_S:
        return bounded(model, max(1, demand.replicas), f"{facts(demand)}; a replica's capacity is not measured yet")
    ahead_s = horizon_s(demand.load_s)
    outlooks = [history.outlook(tier.tier, ahead_s) for tier in demand.tiers]
    expected = sum(outlook.per_s for outlook in outlooks)
    ways = ", ".join(sorted({outlook.way for outlook in outlooks}))
    replicas = max(1, math.ceil(expected / per_s / UTILISATION - 1e-9))
    why = f"{expected:.2f} jobs/s expected in {ahead_s:.0f} s ({ways}), a full replica does {per_s:.2f}"
    return bounded(model, replicas, f"{facts(demand)}; {why}")
