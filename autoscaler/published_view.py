"""What the autoscaler last wanted, as it publishes it and as others read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from .actions.decision import Hold
from .actions.whatif import OneMore, one_more
from .sizing.demand import Demand

if TYPE_CHECKING:
    from .actions.decision import Decision
    from .observation import Memory, Observation
    from .sizing.policy import Policy


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one model should have: ``replicas``, and the ``reason`` and the demand behind it. Unix times.

    ``hold`` says what keeps more from being started; a start waits for ``cooled_at`` when the model has workers, and
    for ``backed_off_until`` in any case.
    """

    replicas: int
    reason: str
    demand: Demand
    one_more: OneMore
    hold: str = ""
    cooled_at: float = 0.0
    backed_off_until: float = 0.0
    backed_off_for: str = ""
    surplus_since: float | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Every model whose demand could be told, as ``policy`` sized it at Unix time ``at``."""

    at: float
    policy: str
    models: Mapping[str, Wanted]


SIZES = TypeAdapter(Sizes)


def sizes_view(
    policy: Policy, seen: Observation, before: Memory, memory: Memory, decisions: Sequence[Decision]
) -> Sizes:
    """What a round leaves to be read.

    Args:
        before: the memory that the round began with; ``memory`` is what it left.
    """
    holds = {one.model: one.reason for one in decisions if isinstance(one, Hold)}
    found = {}
    for name, size in memory.sizes.items():
        failure, surplus = memory.failures.get(name), memory.surplus.get(name)
        found[name] = Wanted(
            size.replicas,
            size.reason,
            seen.demands[name],
            one_more(seen, policy, before, name),
            holds.get(name, ""),
            memory.started_at.get(name, 0.0) + seen.settings.scaling.up_cooldown_s,
            failure.until if failure else 0.0,
            failure.reason if failure else "",
            surplus.since if surplus else None,
        )
    return Sizes(seen.now, policy.name, found)
