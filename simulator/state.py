"""The state of a run: data that dispatch, the autoscaler's rounds and the loop share, and no decisions."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from .events import EventQueue, RequestEvents
from .fleet import SimulatedFleet
from .queueing.queues import Queues
from .results.outcome import RunOutcome

if TYPE_CHECKING:
    from autoscaler.sizing.demand import Demand
    from producer.contract.fleet.settings import Settings

    from .hardware import Hardware
    from .queueing.queue_policy import QueuePolicy
    from .queueing.routing import Routing
    from .traces.trace import Trace
    from .worker import SimulatedWorker


class RunState:
    """One run at one moment. Lists by model are in the order of the trace's models.

    Args:
        seed: of load times.
    """

    def __init__(
        self, settings: Settings, hardware: Hardware, trace: Trace, order: QueuePolicy, routing: Routing, seed: int
    ) -> None:
        self.settings, self.trace, self.order, self.routing = settings, trace, order, routing
        self.fleet = SimulatedFleet(settings, hardware, trace, seed)
        self.queues = [Queues(settings, trace, order) for _ in trace.models]
        """By model: the requests that wait for any of its workers."""
        self.open: list[deque[SimulatedWorker]] = [deque() for _ in trace.models]
        """By model: the workers that wait for requests, in the order in which they are woken."""
        self.pushed_to: list[list[SimulatedWorker]] = [[] for _ in trace.models]
        """By model: the workers that requests are pushed to, the longest ready first; empty while workers pull."""
        self.dead = [0] * len(trace.models)
        """By model: requests that were lost with too many workers."""
        count = len(trace)
        self.outcome = RunOutcome(trace, [math.nan] * count, [math.nan] * count, bytearray(count))
        self.unfinished = count
        """Requests that have not ended, those included that have yet to arrive."""
        self.events = EventQueue()
        self.request_events = RequestEvents()
        self.demands: dict[str, Demand] = {}
        """By model: its demand as the autoscaler saw it in its last round."""
        self.blockers: dict[str, str] = {}
        """By model: why the last round started no further replica that was wanted."""

    def queues_of(self, model: int) -> list[Queues]:
        """All queues in which requests of a model wait: its own and, if requests are pushed, those of its workers."""
        return [self.queues[model], *(worker.queues for worker in self.pushed_to[model])]

    def queued(self, model: int, tier: int) -> int:
        """The number of waiting requests of a model's tier."""
        return sum(len(queues.tiers[tier]) for queues in self.queues_of(model))
