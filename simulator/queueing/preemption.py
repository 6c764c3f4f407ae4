"""Preemption on the virtual clock: the live rules (``scheduler/order/preemption.py``), and when they are applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scheduler.order import preemption
from scheduler.order.preemption import Room

from ..events import EventKind

if TYPE_CHECKING:
    from ..state import RunState
    from ..worker import SimulatedWorker


class Preemption:
    """The slots that preemptible tiers leave to the others, and those that they give up for them.

    In the live fleet the worker that looks first after the grace period takes all waiting requests, and preempts as
    many. Here the workers take turns.

    Args:
        on: whether requests are preempted at all; if not, the room of a worker is the same for every tier.
    """

    def __init__(self, state: RunState, on: bool) -> None:
        self._trace, self._events = state.trace, state.events
        self._tiers = [state.settings.tiers[name] for name in state.trace.tiers]
        self.preemptible = [on and tier.preemptible for tier in self._tiers]
        """By tier."""
        self._on = any(self.preemptible)
        self._scheduled = [False] * len(state.trace.models)
        """By model: whether a preemption is among the events to come."""
        self._holders: list[dict[SimulatedWorker, None]] = [{} for _ in state.trace.models]
        """By model: the workers that may hold preemptible requests, in the order of their turns."""
        self._pause_ends: dict[SimulatedWorker, float] = {}
        """By worker: the end of its last pause for which an event was added."""

    def room(self, worker: SimulatedWorker, now: float) -> Room:
        """The room of a worker while it preempts nothing."""
        if not self._on:
            return Room.of(worker.room)
        held, preemptible = worker.running, len(worker.preemptible)
        beside_others = held > preemptible
        next_at = worker.prefill.next_at(beside_others)
        if next_at > now and self._pause_ends.get(worker) != next_at:
            self._pause_ends[worker] = next_at
            self._events.add(next_at, EventKind.PAUSE_OVER, worker)
        room = preemption.room(
            worker.room + held,
            worker.slots,
            held,
            preemptible - len(worker.kept),
            others_s=0.0 if beside_others else now - worker.others_at,
            pause_s=next_at - now,
        )
        return Room(room.free, room.preemptible)

    def admit(self, worker: SimulatedWorker, requests: Sequence[int], overdue: bool, now: float) -> float:
        """The worker takes these requests (:meth:`SimulatedWorker.admit`); those of an overdue queue are not preempted
        later. Returns when the next request that it holds ends."""
        if not self._on:
            return worker.admit(requests, now)
        tiers = self._trace.tier
        found = {request for request in requests if self.preemptible[tiers[request]]}
        if len(found) < len(requests):
            worker.others_at = now
        if not found or not worker.slots:
            return worker.admit(requests, now)
        due = worker.admit(requests, now, found)
        worker.prefill = replace(
            worker.prefill, patience=self._patience(worker, {tiers[request] for request in found}, now)
        )
        if overdue:
            worker.kept |= found
        else:
            self._holders[worker.model][worker] = None
        return due

    def _patience(self, worker: SimulatedWorker, tiers: set[int], now: float) -> float:
        """The patience of the least patient of these tiers, whose queues requests were taken from."""
        queues = worker.queues.tiers
        return min(preemption.patience(now - queues[tier].filled, self._tiers[tier].target_wait_s) for tier in tiers)

    def queued(self, model: int, tier: int, now: float) -> None:
        """A request of the tier was queued: schedule a preemption for it."""
        if self._holders[model] and not self.preemptible[tier] and not self._scheduled[model]:
            self._scheduled[model] = True
            grace_s = preemption.GRACE * self._tiers[tier].target_wait_s
            self._events.add(now + grace_s, EventKind.PREEMPTION, model)

    def begin(self, model: int) -> None:
        """The scheduled preemption is due: requests that are queued from now on schedule another."""
        self._scheduled[model] = False

    def next_victims(self, model: int, over: int) -> tuple[SimulatedWorker, list[int]] | None:
        """The next worker in turn that holds preemptible requests, and those of them, the youngest first, that give up
        ``over`` slots; None if no worker holds any."""
        holders = self._holders[model]
        while holders:
            worker = next(iter(holders))
            del holders[worker]
            held = [(request, 1) for request in worker.preemptible if request not in worker.kept]
            if worker.accepts and held:
                holders[worker] = None  # behind the others
                return worker, preemption.victims(held, over)
        return None
