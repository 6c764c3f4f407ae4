"""The policy ``slack``: replicas for the arrivals expected during a load; jobs that can wait fill them up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..attainment import headroom_factor
from ..cold_start import cold_size, needed_since
from ..history import horizon_s
from ..size import SLOWEST_PER_S, Size, bounded, facts, idle
from .lookahead import remember_all

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Model, Scaling

    from ...observation import Memory, Observation
    from ..demand import Demand
    from ..history import History


AIM = 0.75
"""Share of what is left of a patient tier's target in which its queue is to be served. A queue that is sized for the
whole of it settles where every job waits just that long, and half of them a little longer."""


class SlackPolicy:
    """Sizes a model by the tier with the least slack.

    1. A tier with a target within the horizon cannot wait for a new replica and needs capacity beforehand: the forecast
       rate plus ``headroom`` standard deviations of the forecast's measured error, the newsvendor's quantile (Arrow,
       Harris and Marschak, 1951); more of them while the tier attains less than is asked (``attainment.py``).
    2. A tier that can wait needs none beforehand. Its queued jobs, and those of all more urgent tiers, must be served
       in three quarters of what is left of its target. A target within the horizon counts as the horizon, since no
       replica started now could meet it.
    3. A replica counts with the throughput that it has when full (``capacity.py``).
    4. A surplus is kept for some load times. Keeping it for one costs as many device seconds as loading it again, at
       most twice what an optimal schedule pays (ski rental; Karlin et al., 1988); the others are for the jobs that
       would miss their target during a load.

    Until its capacity is measured a model grows within bounds (``cold_start.py``).
    """

    name = "slack"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """See :class:`~autoscaler.sizing.policy_registry.Policy`."""
        models, histories = seen.settings.models, remember_all(seen, memory)
        sizes: dict[str, Size] = {}
        needed: dict[str, int] = {}
        for name, demand in seen.demands.items():
            found = slack_size(models[name], demand, histories[name], seen.settings.scaling)
            measured = full_per_s(models[name], demand, histories[name]) >= SLOWEST_PER_S
            since = needed_since(memory.needed.get(name), measured, found.replicas, demand.replicas)
            if since is not None:
                needed[name] = since
            sizes[name] = replace(found, needed=since) if measured else found
        return sizes, replace(memory, histories=histories, needed=needed)


def full_per_s(model: Model, demand: Demand, history: History) -> float:
    """Jobs per second of a full replica; 0 if that is not measured. Reserved slots are for bursts, and do not count."""
    return history.capacity.per_s(model.max_concurrency - demand.left)


def slack_size(model: Model, demand: Demand, history: History, scaling: Scaling) -> Size:
    """The replicas of one model."""
    spare_s = max(scaling.idle_s, scaling.keep_loads * demand.load_s)
    if (nothing := idle(demand, spare_s)) is not None:
        return bounded(model, 0, nothing, spare_s)
    per_s = full_per_s(model, demand, history)
    if per_s < SLOWEST_PER_S:
        return replace(cold_size(model, demand, spare_s, horizon_s(demand.load_s)), spare_s=spare_s)
    required, why = needed_per_s(demand, history, scaling.headroom)
    # Rounded to the nearest: work for less than half a replica is queued, counted, and asks for a replica if it stays.
    replicas = max(1, math.floor(required / per_s + 0.5))
    return bounded(model, replicas, f"{facts(demand)}; {why}; a full replica does {per_s:.2f}", spare_s)


def needed_per_s(demand: Demand, history: History, headroom: float) -> tuple[float, str]:
    """The jobs per second that the tier with the least slack needs, and the reason."""
    ahead_s = horizon_s(demand.load_s)
    most, why = 0.0, "nothing expected"
    expected, spread, told = 0.0, 0.0, ""
    queued = demand.suspects
    for tier in sorted(demand.tiers, key=lambda tier: tier.target_wait_s):
        queued += tier.queued
        way = "with what waits"
        if tier.target_wait_s <= ahead_s:
            outlook = history.outlook(tier.tier, ahead_s)
            raised = headroom_factor(tier.attain, tier.attained)
            expected, spread = expected + outlook.per_s, spread + raised * outlook.spread
            if raised > 1:
                told = f"; {tier.tier} attained {tier.attained:.1%} of {tier.attain:g}: {raised:.1f} times the headroom"
            way = f"as {outlook.way} tells"
        left_s = max(AIM * (tier.target_wait_s - tier.waited_s), ahead_s)
        # Headroom is for bursts: the queued jobs of a burst do not need it a second time.
        needed = expected + max(headroom * spread, queued / left_s)
        if needed > most:
            most = needed
            why = (
                f"{needed:.2f} jobs/s needed up to {tier.tier}: {expected:.2f} expected ({way}), and the larger of "
                f"{queued} queued in {left_s:.0f} s and {headroom:g} x {spread:.2f} by which that was wrong"
            )
    return most, why + told
