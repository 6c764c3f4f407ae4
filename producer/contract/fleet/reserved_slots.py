"""Reserved slots: how many of a worker's slots jobs of preemptible tiers leave to jobs of the other tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings

RESERVE = 1 / 6
"""Share of a worker's slots that is reserved, rounded down: none of fewer than six."""


def reserved(slots: int) -> int:
    """How many of a worker's ``slots`` are reserved for tiers that are not preemptible."""
    return int(slots * RESERVE)


def left_to_others(settings: Settings, tier: str, slots: int, arrivals_per_s: Mapping[str, float]) -> int:
    """How many of a worker's slots jobs of ``tier`` cannot use: those reserved, if ``tier`` is preemptible and jobs of
    other tiers arrive.

    Args:
        arrivals_per_s: jobs per second that arrive, by tier.
    """
    others = any(per_s and not settings.tiers[each].preemptible for each, per_s in arrivals_per_s.items())
    return reserved(slots) if others and settings.tiers[tier].preemptible else 0
