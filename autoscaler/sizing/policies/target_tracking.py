"""Target tracking: as many replicas as bring utilisation to its target. Kubernetes' horizontal pod autoscaler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..size import Size, bounded, facts, idle, utilisation

if TYPE_CHECKING:
    from producer.contract.fleet_schema import Model, Scaling

    from ...observation import Memory, Observation
    from ..demand import Demand

TOLERANCE = 0.1
"""A utilisation that is off by less than this part of its target changes nothing, as there."""


class TargetTrackingPolicy:
    """``ceil(replicas * utilisation / target)``, up at once, down when it has held (``[scaling.target_tracking]``).

    Jobs that wait count as utilisation, or a model that is full could never ask for more than a few.
    """

    name = "target-tracking"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """As :class:`~autoscaler.sizing.policy.Policy` has it; the surplus that :mod:`~autoscaler.actions.shrink`
        keeps for a while is
        all the memory that it needs."""
        models, scaling = seen.settings.models, seen.settings.scaling
        return {name: tracking_size(models[name], one, scaling) for name, one in seen.demands.items()}, memory


def tracking_size(model: Model, demand: Demand, scaling: Scaling) -> Size:
    """The replicas of one model."""
    rule = scaling.target_tracking
    if (nothing := idle(demand, max(scaling.idle_s, rule.down_s))) is not None:
        return bounded(model, 0, nothing, rule.down_s)
    busy = utilisation(demand, waiting=True)
    told = f"{facts(demand)}; {busy:.0%} busy with what waits, target {rule.utilisation:.0%}"
    # Those that load are there already for the arithmetic, or each round would ask for as many again.
    ready = demand.ready
    if ready == 0 or abs(busy / rule.utilisation - 1) <= TOLERANCE:
        return bounded(model, max(1, demand.replicas), told, rule.down_s)
    return bounded(model, max(1, math.ceil(ready * busy / rule.utilisation - 1e-9)), told, rule.down_s)
