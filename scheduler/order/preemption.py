"""Which slots work that can wait leaves to work that cannot, where jobs join and leave a running batch.

Jobs of a preemptible tier (fleet file: ``tiers``) run in the slots that the others leave over:

- While a worker holds others, and a while after they came, a share of its slots is left free: a few that come at once
  then start at once. And preemptible jobs join it one at a time, the next when the prompt of the last one, its first
  prompts if it has many, has been read: what a job takes first is the device's time, and not a slot. Beside others that
  it holds, it is only after a pause as well, ``PACE`` times as long as that prompt has kept their tokens waiting.
- Others that have waited for ``GRACE`` of their target, so that no worker has a slot for them, take the slots of
  preemptible jobs, the youngest first: those lose least. They go back to the head of their queue, and begin anew.

Nothing starves: what was taken when its queue was overdue (``priority``) is not preempted, and the clock of a
preemptible tier's queue goes on until a job of it ends, or is taken so. Nor is a job that brought a deadline of its own
that is nearer than its tier's target.

Engines that run batches as a whole have no slots in this sense: a batch ends soon, and all its places with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from producer.contract.reserved_slots import reserved

J = TypeVar("J")

LATELY_S = 300.0
"""For how long after the last job of another tier they leave a share free, in seconds."""

GRACE = 0.05
"""After which share of their target jobs of other tiers take slots; as in ``claim.lua``."""

PACE = 4.0
"""How long others are spared the next prompt of a preemptible job, in times of how long the last one held them up."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs a worker may take at a claim."""

    free: int
    """Of tiers that are not preemptible."""
    preemptible: int
    """Of preemptible tiers, those of other tiers included."""
    preempting: int = 0
    """Beyond ``free``, once they have waited for long enough, for which others give way."""

    @classmethod
    def of(cls, jobs: int) -> Room:
        """For so many jobs, whatever their tiers."""
        return cls(jobs, jobs)

    def of_tier(self, preemptible: bool) -> int:
        """Jobs of a tier, at most."""
        return self.preemptible if preemptible else self.free + self.preempting

    @property
    def most(self) -> int:
        """Jobs of whichever tier may take most."""
        return max(self.of_tier(True), self.of_tier(False))


@dataclass(frozen=True, slots=True)
class Prefill:
    """The reading of the last prompt of a preemptible tier that joined a worker: when it ends, by the caller's clock
    (infinite: nobody knows yet), and for how long others have to wait for their tokens meanwhile, in seconds."""

    read_at: float = -math.inf
    stall_s: float = 0.0

    def next_at(self, beside_others: bool) -> float:
        """From when on another may join."""
        return self.read_at + (PACE * self.stall_s if beside_others else 0.0)


def room(capacity: int, slots: int, held: int, preemptible: int, others_s: float, pause_s: float = 0.0) -> Room:
    """The room of a worker.

    Args:
        capacity: jobs that its engine has a use for, some ahead of a slot included; 0 when it takes none at all.
        slots: that jobs join and leave one by one; 0 if its engine runs batches as a whole.
        held: jobs that it holds.
        preemptible: of these, how many may be preempted.
        others_s: how long ago it took a job that is not of a preemptible tier, in seconds; 0 while it holds one.
        pause_s: for how long no other job of a preemptible tier may join those that it holds, in seconds
            (:meth:`Prefill.next_at`).
    """
    ahead = capacity - held
    if not slots or not capacity:
        return Room.of(ahead)
    rest = ahead
    if others_s < LATELY_S:
        kept = reserved(slots)
        rest = min(ahead, slots - kept - held if kept else ahead, 0 if pause_s > 0 else 1)
    if not preemptible:
        return Room(ahead, rest)
    free = max(0, min(ahead, slots - held))  # behind a preemptible job it would wait for that job's end
    return Room(free, rest, max(0, slots - (held - preemptible) - free))


def victims(preemptible: Iterable[tuple[J, int]], over: int) -> list[J]:
    """Who gives way, the youngest first, until ``over`` slots are freed; given as (job, slots), the oldest first."""
    found = []
    for job, slots in reversed([*preemptible]):
        if over <= 0:
            break
        found.append(job)
        over -= slots
    return found
