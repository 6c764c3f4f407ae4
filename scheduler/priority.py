"""Which queue is served first: weighted priority with ageing.

A queue's urgency is ``weight * (1 + waited / target_wait)``, where ``waited`` is how long its head has been
passed over, in seconds. The highest goes first. A tier's weight is thus its head start, and waiting makes
up for a smaller one: while others are served without a pause, a queue is passed over for at most
``target_wait * (highest weight / weight - 1)`` seconds, so nothing starves.

The clock starts when a queue was last served, not at a producer's own time stamp: no producer can get
ahead by lying, and stock producers, which stamp nothing, are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from producer.settings import Tier


@dataclass(frozen=True, slots=True)
class Rank:
    """Urgency as a line over time; ``claim.lua`` evaluates it by the server's clock."""

    head_start: float
    growth: float
    """Per second."""

    def urgency(self, waited_s: float) -> float:
        """How urgent a queue is whose head was passed over for so long."""
        return self.head_start + self.growth * waited_s


def rank(tier: Tier) -> Rank:
    """The rank of a tier's queue."""
    return Rank(head_start=tier.weight, growth=tier.weight / tier.target_wait_s)


def longest_wait(tier: Tier, highest: Tier) -> float:
    """Seconds after which a passed-over queue is served before one that is always served."""
    return tier.target_wait_s * max(0.0, highest.weight / tier.weight - 1)
