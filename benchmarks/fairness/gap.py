"""The service gap: how far apart tenants get that all have jobs waiting all the time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.order.fairness import bound, expected, price
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.order.priority import Rank

LONGEST_INPUT = 512
LONGEST_OUTPUT = 256
"""Tokens of the largest job."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of known size, in tokens. ``number`` is its place in the order of arrival."""

    number: int
    tenant: str
    input_tokens: int
    output_tokens: int

    @property
    def service(self) -> float:
        """What it is worth."""
        return price(self.input_tokens, self.output_tokens)


class Source(Protocol):
    """Whatever hands out jobs."""

    def claim(self, room: int) -> list[Job]:
        """Up to ``room`` jobs."""

    def finish(self, jobs: Sequence[Job]) -> None:
        """They ended: how long their outputs are is known now."""


@dataclass(slots=True)
class Gap:
    """How far the most and the least served tenant were apart: service over weight, in tokens."""

    largest: float = 0.0
    over_time: list[float] = field(default_factory=list)
    """After each claim."""

    @property
    def growth(self) -> float:
        """The mean of its last tenth over that of the tenth before the middle: 2 when it grows in proportion."""
        tenth = max(1, len(self.over_time) // 10)
        middle = self.over_time[len(self.over_time) // 2 - tenth : len(self.over_time) // 2]
        return (sum(self.over_time[-tenth:]) / tenth) / max(sum(middle) / tenth, 1e-9)


def published_bound(workers: int, room: int) -> float:
    """Theorem 4.4 for this: the batch is what all workers together run, for they take from one queue."""
    return bound(LONGEST_INPUT, workers * room * LONGEST_OUTPUT)


def workload(rng: random.Random, tenants: int, each: int) -> list[Job]:
    """Jobs in the order of arrival. Every eighth tenant is noisy: it sends eight times as many as the ``each`` of the
    others; and everybody has jobs of its own sizes."""
    sizes = [(rng.uniform(0.05, 1), rng.uniform(0.05, 1)) for _ in range(tenants)]
    whose = [tenant for tenant in range(tenants) for _ in range(each * (8 if tenant % 8 == 0 else 1))]
    rng.shuffle(whose)
    return [
        Job(
            number,
            f"t{tenant}",
            1 + int(rng.random() * sizes[tenant][0] * (LONGEST_INPUT - 1)),
            1 + int(rng.random() * sizes[tenant][1] * (LONGEST_OUTPUT - 1)),
        )
        for number, tenant in enumerate(whose)
    ]


def measure(
    source: Source, jobs: Sequence[Job], weights: dict[str, float], workers: int, room: int, rng: random.Random
) -> Gap:
    """Serve until the first tenant has nothing waiting; workers end and take jobs in any order."""
    left: defaultdict[str, int] = defaultdict(int)
    for job in jobs:
        left[job.tenant] += 1
    service = dict.fromkeys(left, 0.0)
    held: list[list[Job]] = [[] for _ in range(workers)]
    gap = Gap()
    while True:
        worker = rng.randrange(workers)
        ended = [job for job in held[worker] if rng.random() < 0.7]
        source.finish(ended)
        for job in ended:
            service[job.tenant] += job.service / weights.get(job.tenant, 1.0)
        held[worker] = [job for job in held[worker] if job not in ended]
        taken = source.claim(room - len(held[worker])) if len(held[worker]) < room else []
        held[worker] += taken
        for job in taken:
            left[job.tenant] -= 1
        if not all(left.values()):
            return gap
        gap.over_time.append(max(service.values()) - min(service.values()))
        gap.largest = max(gap.largest, gap.over_time[-1])


class Model:
    """The pure order, as ``scheduler/order/lanes.py`` has it."""

    def __init__(self, jobs: Iterable[Job], weights: dict[str, float]) -> None:
        self._lanes: Lanes[Job] = Lanes(Rank(-1.0, 1.0), weights)
        self._output = LONGEST_OUTPUT / 4
        for job in jobs:
            self._lanes.push(QueuedJob(job, job.tenant, float(job.number), self._charge(job)), 0.0)

    def _charge(self, job: Job) -> float:
        return expected(900 + int(job.input_tokens * 16 / 3), self._output)

    def claim(self, room: int) -> list[Job]:
        """See :class:`Source`."""
        return [waiting.job for waiting in claim([self._lanes], 0.0, Room.of(room)).jobs]

    def finish(self, jobs: Sequence[Job]) -> None:
        """See :class:`Source`."""
        for job in jobs:
            late = job.service - self._charge(job)
            self._lanes.counters.charge(job.tenant, late / self._lanes.weights.get(job.tenant, 1.0))


class Fifo:
    """First in, first out, regardless of tenants."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting = list(reversed(list(jobs)))

    def claim(self, room: int) -> list[Job]:
        """See :class:`Source`."""
        return [self._waiting.pop() for _ in range(min(room, len(self._waiting)))]

    def finish(self, jobs: Sequence[Job]) -> None:
        """See :class:`Source`."""
