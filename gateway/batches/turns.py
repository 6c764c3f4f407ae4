"""Which batches run: tenants share the places of a batch process, and a batch that gets nowhere makes room for others.

Pure: what runs and what waits comes in, what is to start or to stop goes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AT_ONCE = 8
"""Most batches of one process at a time. Each may hold ``in_flight.MOST_BYTES`` of lines for each model."""

OF_TENANT = AT_ONCE - 2
"""Most batches of one tenant, so that the next tenant starts at once."""

IDLE_S = 10.0
"""Seconds without progress after which a batch makes room for one that waits."""


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """A batch that runs here, and for how many seconds it has made no progress."""

    batch_id: str
    tenant: str
    idle_s: float = 0.0


def next_batch(running: Sequence[RunningBatch], waiting: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """The batch to start now, and its tenant: of the tenant with the fewest that run, its first.

    Args:
        waiting: by tenant, the batches that do not run, in their order; of tenants alike the first goes first.
    """
    if len(running) >= AT_ONCE:
        return None
    held = Counter(each.tenant for each in running)
    tenants = [tenant for tenant, batches in waiting.items() if batches and held[tenant] < OF_TENANT]
    if not tenants:
        return None
    tenant = min(tenants, key=held.__getitem__)
    return waiting[tenant][0], tenant


def to_stop(running: Sequence[RunningBatch], waiting: Mapping[str, Sequence[str]]) -> str | None:
    """The batch that is to make room for one that waits: of a tenant that holds more than its share, the one without
    progress for longest; else one without progress for ``IDLE_S``. None while there is a place, or nothing gains."""
    held = Counter(each.tenant for each in running)
    wanting = [tenant for tenant, batches in waiting.items() if batches]
    if not wanting or next_batch(running, waiting) is not None:
        return None
    fewest, most = min(held[tenant] for tenant in wanting), max(held.values(), default=0)
    if most > fewest + 1:
        return max((each for each in running if held[each.tenant] == most), key=lambda each: each.idle_s).batch_id
    stuck = [
        each for each in running if each.idle_s >= IDLE_S and (each.tenant in wanting or held[each.tenant] > fewest)
    ]
    return max(stuck, key=lambda each: each.idle_s).batch_id if stuck else None
