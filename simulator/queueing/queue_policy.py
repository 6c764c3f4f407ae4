"""The order of a model's queues at a claim, by name. Each is a rank: a line over time, as for ``claim.lua``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler.order.priority import Rank, rank

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Tier


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Which queue goes first: the highest rank. Its clock starts when the head arrived (``by_arrival``), or, as in
    the live fleet, when the queue was last served. Of a queue goes first what came first, or, if it is ``fair`` and
    tenants share it, the tenant that was served least."""

    name: str
    rank: Callable[[Tier], Rank]
    by_arrival: bool = False
    fair: bool = False
    preempts: bool = False
    """Whether jobs of preemptible tiers give way to the others (``scheduler/order/preemption.py``)."""


LIVE = QueuePolicy("fair-share", rank, fair=True, preempts=True)
"""What the live claim does: what is due first, by since when its queue was passed over; of it, whose turn it is."""
AGEING = QueuePolicy("ageing", rank, preempts=True)
FIFO = QueuePolicy("fifo", lambda _: Rank(0.0, 1.0), by_arrival=True)
STRICT = QueuePolicy("strict", lambda tier: Rank(tier.weight, 0.0))
EARLIEST_DEADLINE = QueuePolicy("edf", lambda tier: Rank(-tier.target_wait_s, 1.0), by_arrival=True)

ORDERS = {order.name: order for order in (LIVE, AGEING, FIFO, STRICT, EARLIEST_DEADLINE)}
