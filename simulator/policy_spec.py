"""The policies of a run by name: sizing, queue order and routing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscaler.sizing.policy_registry import POLICIES
from producer.contract.errors import ConfigError

from .queueing.queue_policy import LIVE, ORDERS, QueuePolicy
from .queueing.routing import PULL, ROUTINGS, Routing

if TYPE_CHECKING:
    from autoscaler.sizing.policy_registry import Policy


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What decides in a run. ``name`` is what it was asked for by."""

    name: str
    scaling: Policy
    order: QueuePolicy = LIVE
    routing: Routing = PULL


def named(name: str, scaling: str) -> PolicySpec:
    """The scheme of that name: ``strict``, or several joined as ``threshold+fifo+round-robin``, at most one of each
    kind. What it does not name is as in the live fleet.

    Args:
        scaling: the fleet's scaling policy.

    Raises:
        ConfigError: naming those there are.
    """
    kinds: tuple[Collection[str], ...] = (POLICIES, ORDERS, ROUTINGS)
    chosen = [scaling, LIVE.name, PULL.name]
    given: dict[int, str] = {}
    for part in name.split("+"):
        kind = next((n for n, known in enumerate(kinds) if part in known), None)
        if kind is None:
            raise ConfigError(f"no policy {part!r}; allowed: {told()}; several kinds joined as threshold+fifo")
        if kind in given:
            raise ConfigError(f"{name}: {given[kind]} and {part} are of one kind; to see both, compare them: a,b")
        given[kind] = chosen[kind] = part
    return PolicySpec(name, POLICIES[chosen[0]], ORDERS[chosen[1]], ROUTINGS[chosen[2]])


def told() -> str:
    """All names there are, by kind."""
    return (
        f"{', '.join(POLICIES)} (how many replicas); {', '.join(ORDERS)} (which request is next); "
        f"{', '.join(ROUTINGS)} (which worker gets it)"
    )
