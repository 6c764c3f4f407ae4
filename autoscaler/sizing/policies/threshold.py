"""The policy ``threshold``: one replica more above a utilisation, one fewer below another; the textbook's baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..size import Size, bounded, facts, idle, utilisation

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model, Scaling

    from ...observation import Memory, Observation
    from ..demand import Demand


class ThresholdPolicy:
    """Step scaling on the share of slots in use, as AWS Auto Scaling does it.

    A step is one replica; the cooldown since the last step must have passed (``[scaling.threshold]``).
    """

    name = "threshold"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """See :class:`~autoscaler.sizing.policy_registry.Policy`."""
        sizes: dict[str, Size] = {}
        resized = dict(memory.resized_at)
        for name, demand in seen.demands.items():
            since = seen.now - resized[name] if name in resized else None
            sizes[name] = threshold_size(seen.settings.models[name], demand, since, seen.settings.scaling)
            if sizes[name].replicas != demand.replicas:
                resized[name] = seen.now
        return sizes, replace(memory, resized_at=resized)


def threshold_size(model: Model, demand: Demand, since_s: float | None, scaling: Scaling) -> Size:
    """The replicas of one model.

    Args:
        since_s: seconds since the last step; None when there was none.
    """
    rule = scaling.threshold
    if (nothing := idle(demand, max(scaling.idle_s, rule.down_cooldown_s))) is not None:
        return bounded(model, 0, nothing, 0.0)
    busy = utilisation(demand)
    told = f"{facts(demand)}; {busy:.0%} busy"
    if demand.replicas == 0:
        return bounded(model, 1, told, 0.0)
    if busy > rule.up:
        if since_s is None or since_s >= rule.up_cooldown_s:
            return bounded(model, demand.replicas + 1, f"{told}, above {rule.up:.0%}", 0.0)
        told = f"{told}, above {rule.up:.0%}; cooling down for {rule.up_cooldown_s - since_s:.0f} s more"
    elif busy < rule.down and demand.replicas > 1:
        if since_s is None or since_s >= rule.down_cooldown_s:
            return bounded(model, demand.replicas - 1, f"{told}, below {rule.down:.0%}", 0.0)
        told = f"{told}, below {rule.down:.0%}; cooling down for {rule.down_cooldown_s - since_s:.0f} s more"
    return bounded(model, demand.replicas, told, 0.0)
