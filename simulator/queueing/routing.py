"""The routing policies by name: workers pull from one queue, or requests are pushed to a queue for each worker.

Stoker's workers pull. Load balancers push: they send a request to one worker on arrival, and it waits behind that
worker's other requests even while another worker is idle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..traces.trace import Trace
    from ..worker import SimulatedWorker


class Choose(Protocol):
    """Names the worker of a request of one model. It may remember what it did before."""

    def __call__(self, ready: Sequence[SimulatedWorker], request: int, /) -> SimulatedWorker:
        """One of those that serve, of which there is at least one, the longest ready first."""


class RoundRobin:
    """Each in its turn, whatever it has to do."""

    def __init__(self, _: Trace) -> None:
        self._turn = -1

    def __call__(self, ready: Sequence[SimulatedWorker], _: int, /) -> SimulatedWorker:
        """As :class:`Choose` has it."""
        self._turn = (self._turn + 1) % len(ready)
        return ready[self._turn]


def least_connections(ready: Sequence[SimulatedWorker], _: int, /) -> SimulatedWorker:
    """The worker with the fewest requests, running and queued; of equals the first. Their lengths are unknown."""
    return min(ready, key=lambda worker: worker.running + worker.queues.waiting)


class Affinity:
    """Always the same worker for a tenant, for the sake of caches: the winner of the tenant's rendezvous hash (Thaler
    and Ravishankar, 1998). A worker that comes or goes moves only the tenants that it wins, or won. Without tenants
    every request is one of its own, which is as random."""

    def __init__(self, trace: Trace) -> None:
        self._key = trace.tenant if len(trace.tenants) > 1 else range(len(trace))

    def __call__(self, ready: Sequence[SimulatedWorker], request: int, /) -> SimulatedWorker:
        """As :class:`Choose` has it."""
        key = self._key[request]
        return max(ready, key=lambda worker: hashlib.blake2b(f"{key} {worker.name}".encode(), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Routing:
    """``chooser`` makes the function that chooses for one model; with None, workers pull."""

    name: str
    chooser: Callable[[Trace], Choose] | None = None


PULL = Routing("pull")
"""What the live fleet does."""

ROUTINGS = {
    routing.name: routing
    for routing in (
        PULL,
        Routing("round-robin", RoundRobin),
        Routing("least-connections", lambda _: least_connections),
        Routing("affinity", Affinity),
    )
}
