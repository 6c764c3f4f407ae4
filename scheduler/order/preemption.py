"""Preemption: how jobs of preemptible tiers share a worker with other jobs, where jobs join and leave a running batch.

Jobs of a preemptible tier (fleet file: ``tiers``) run in the slots that other tiers do not use:

- While a worker holds jobs of other tiers, and for some time afterwards, some slots are reserved, so that a small burst
  starts at once. Preemptible jobs then join one at a time, the next one after the prefill of the last (its first
  prompts, if it has many): a job first takes device time, not a slot. While other jobs run, the next one also waits for
  a pause, which is the price of the device time that the last prefill took from them: ``PACE`` times their stall, and
  less as the preemptible tier's target is used up (:func:`patience`). So such jobs take little while they can wait, and
  their part of the device when they cannot: the part that the sizing counts for them (``autoscaler/sizing``), which
  knows no pauses.
- Jobs of other tiers that have waited for the share ``GRACE`` of their target, because no worker had a slot, take the
  slots of preemptible jobs, the youngest first: these lose least. Preempted jobs go back to the head of their queue and
  start again.

Nothing starves: a job that was claimed when its queue was overdue (``priority``) is not preempted, and a preemptible
queue's clock runs on until one of its jobs ends or is claimed overdue. A deadline of its own does not keep a job from
being preempted: any tenant could then occupy every slot of a tier that is there to give way.

Engines that run whole batches have no slots in this sense: a batch ends soon, and all its jobs with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from producer.contract.fleet.reserved_slots import reserved

J = TypeVar("J")

LATELY_S = 300.0
"""Seconds after the last job of another tier for which slots stay reserved. Chosen on ``benchmarks.simulator --only
4``."""

GRACE = 0.05
"""Share of their target after which jobs of other tiers preempt."""

PACE = 4.0
"""Longest pause before the next preemptible prefill, as a multiple of the stall that the last one caused."""


PATIENT = 0.5
"""Share of a preemptible tier's target for which its queue may hold jobs before the pauses get shorter."""


def patience(filled_s: float, target_s: float) -> float:
    """The share of the longest pause that a preemptible tier waits whose queue has held jobs for ``filled_s`` seconds:
    all while much of its target is left, then less and less, none from the target on.

    No job there has waited longer. How long the first one has is not known: producers' time stamps have no influence.
    """
    return min(1.0, max(0.0, 1.0 - filled_s / target_s) / (1.0 - PATIENT))


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs a worker may claim."""

    free: int
    """Jobs of tiers that are not preemptible."""
    preemptible: int
    """Jobs of preemptible tiers, those of other tiers included."""
    preempting: int = 0
    """Jobs beyond ``free`` that may be claimed after ``GRACE``, because running jobs can be preempted for them."""

    @classmethod
    def of(cls, jobs: int) -> Room:
        """Room for ``jobs`` jobs of any tier."""
        return cls(jobs, jobs)

    def of_tier(self, preemptible: bool) -> int:
        """Most jobs of a tier."""
        return self.preemptible if preemptible else self.free + self.preempting

    @property
    def most(self) -> int:
        """Most jobs of any tier."""
        return max(self.preemptible, self.free + self.preempting)


@dataclass(frozen=True, slots=True)
class Prefill:
    """The last admitted prefill of a preemptible tier: when it ends, by the caller's clock (infinite while unknown),
    the stall that it causes to running sequences, in seconds, and the :func:`patience` of its tier."""

    read_at: float = -math.inf
    stall_s: float = 0.0
    patience: float = 1.0

    def next_at(self, beside_others: bool) -> float:
        """When the next preemptible job may join."""
        return self.read_at + (PACE * self.patience * self.stall_s if beside_others else 0.0)


def room(capacity: int, slots: int, held: int, preemptible: int, others_s: float, pause_s: float = 0.0) -> Room:
    """The room of a worker.

    Args:
        capacity: jobs that its engine accepts, including some ahead of a slot; 0 when it accepts none.
        slots: of a continuous engine; 0 if the engine runs whole batches.
        held: jobs that it holds.
        preemptible: held jobs that may be preempted.
        others_s: seconds since it claimed a job of a tier that is not preemptible; 0 while it holds one.
        pause_s: seconds until another preemptible job may join (:meth:`Prefill.next_at`).
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
    """The jobs to preempt, the youngest first, until ``over`` slots are free; given as (job, slots), the oldest
    first."""
    found = []
    for job, slots in reversed([*preemptible]):
        if over <= 0:
            break
        found.append(job)
        over -= slots
    return found
