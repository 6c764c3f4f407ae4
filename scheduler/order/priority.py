"""Priority: the queue whose head has the earliest due time is served first.

A queue's head is due when it has been passed over for the tier's ``target_wait_s``, or at its own deadline if that is
earlier. Lateness counts ``weight`` times, so that a late interactive job goes before a batch job that is somewhat
later.

The clock starts when the queue was last served. So a tier with a long backlog that is late as a whole does not displace
the others: it is served once in every target while others are always due sooner (``longest_wait``), and otherwise with
the remaining capacity. Nothing starves, and time stamps of producers have no influence.

``claim.lua`` evaluates the same rule by the server's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from producer.contract.fleet.fleet_schema import Tier


@dataclass(frozen=True, slots=True)
class Rank:
    """Urgency as a line over time; where it is positive it is multiplied by ``late``."""

    head_start: float
    growth: float
    """Per second."""
    late: float = 1.0

    def urgency(self, waited_s: float, deadline_s: float = math.inf) -> float:
        """The urgency of a queue whose head was passed over for ``waited_s``, with its own deadline in
        ``deadline_s``."""
        urgency = max(self.head_start + self.growth * waited_s, -deadline_s)
        return urgency * self.late if urgency > 0 else urgency


def rank(tier: Tier) -> Rank:
    """The rank of a tier's queue: the seconds by which its head is overdue; negative before its due time."""
    return Rank(head_start=-tier.target_wait_s, growth=1.0, late=tier.weight)


def longest_wait(tier: Tier, other: Tier) -> float:
    """Seconds after which a passed-over queue is served before one that is served continuously."""
    return max(0.0, tier.target_wait_s - other.target_wait_s)
