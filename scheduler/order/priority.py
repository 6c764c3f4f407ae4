"""Which queue is served first: the one whose head is due first.

A queue's head is due when it was passed over for the tier's ``target_wait_s``, or at its own deadline if that is
earlier. What is late counts its lateness ``weight`` times, so that an interactive job that is late goes before a
batch job that is somewhat later still.

The clock starts when the queue was last served. So a tier with a long backlog that is late as a whole does not
push the others aside: in every target it is served once, if there are always others that are due sooner
(``longest_wait``), and for the rest it takes what they leave. Nothing starves, and no producer can get ahead by lying
about when its jobs came.

``claim.lua`` evaluates the same by the server's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from producer.contract.fleet_schema import Tier


@dataclass(frozen=True, slots=True)
class Rank:
    """Urgency as a line over time that grows ``late`` times as fast from where it is positive."""

    head_start: float
    growth: float
    """Per second."""
    late: float = 1.0

    def urgency(self, waited_s: float, deadline_s: float = math.inf) -> float:
        """How urgent a queue is whose head was passed over for so long, and has its own deadline in so many seconds."""
        urgency = max(self.head_start + self.growth * waited_s, -deadline_s)
        return urgency * self.late if urgency > 0 else urgency


def rank(tier: Tier) -> Rank:
    """The rank of a tier's queue: the seconds for which its head is overdue; below 0, those that it has left."""
    return Rank(head_start=-tier.target_wait_s, growth=1.0, late=tier.weight)


def longest_wait(tier: Tier, other: Tier) -> float:
    """Seconds after which a passed-over queue is served before one that is always served."""
    return max(0.0, tier.target_wait_s - other.target_wait_s)
