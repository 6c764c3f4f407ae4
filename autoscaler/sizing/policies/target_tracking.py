"""The policy ``target-tracking``: replicas that bring utilisation to its target, as Kubernetes' pod autoscaler; a
baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..size import Size, bounded, facts, idle, utilisation

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model, Scaling

    from ...observation import Memory, Observation
    from ..demand import Demand

TOLERANCE = 0.1
"""Relative deviation from the target below which nothing changes, as in Kubernetes."""


class TargetTrackingPolicy:
    """``ceil(replicas * utilisation / target)``: up at once, down after ``down_s`` (``[scaling.target_tracking]``).

    Queued jobs count as utilisation; otherwise a full model could ask for a few more replicas at most.
    """

    name = "target-tracking"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """See :class:`~autoscaler.sizing.policy_registry.Policy`. The surplus kept by ``actions/shrink.py`` is its only
        state."""
        models, scaling = seen.settings.models, seen.settings.scaling
        return {name: tracking_size(models[name], one, scaling) for name, one in seen.demands.items()}, memory


def tracking_size(model: Model, demand: Demand, scaling: Scaling) -> Size:
    """The replicas of one model."""
    rule = scaling.target_tracking
    if (nothing := idle(demand, max(scaling.idle_s, rule.down_s))) is not None:
        return bounded(model, 0, nothing, rule.down_s)
    busy = utilisation(demand, waiting=True)
    told = f"{facts(demand)}; {busy:.0%} busy with what waits, target {rule.utilisation:.0%}"
    # Loading replicas count as present, or each round would ask for them again.
    ready = demand.ready
    if ready == 0 or abs(busy / rule.utilisation - 1) <= TOLERANCE:
        return bounded(model, max(1, demand.replicas), told, rule.down_s)
    return bounded(model, max(1, math.ceil(ready * busy / rule.utilisation - 1e-9)), told, rule.down_s)
