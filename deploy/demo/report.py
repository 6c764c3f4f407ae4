"""The figures of the demo: the phases of the first job's latency, waits, and batch sizes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from producer.contract.published import JournalEntry

from .watch import Life
from .work import CompletedJob


@dataclass(frozen=True, slots=True)
class FromZero:
    """The phases between the first job's submission and its result, without a running worker, in seconds."""

    noticing: float
    starting: float
    loading: float
    running: float

    @property
    def total(self) -> float:
        """Seconds from submission to result."""
        return self.noticing + self.starting + self.loading + self.running

    def __str__(self) -> str:
        return (
            f"{self.total:.1f} s from the first job to its result, with no worker up: {self.noticing:.1f} s noticing, "
            f"{self.starting:.1f} s starting the process, {self.loading:.1f} s loading the model, "
            f"{self.running:.1f} s running"
        )


def from_zero(first: CompletedJob, decisions: Sequence[JournalEntry], lives: dict[str, Life]) -> FromZero:
    """Split the first job's latency by the autoscaler's decision and the heartbeats of the worker it started.

    The time stamps come from several processes of one machine, and so from one clock.
    """
    start = next(one for one in decisions if (one.action, one.model) == ("start", first.model))
    life = lives[start.worker]
    ready_at = life.ready_at if life.ready_at is not None else first.ended_at
    return FromZero(
        start.at - first.submitted_at, life.spoke_at - start.at, ready_at - life.spoke_at, first.ended_at - ready_at
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of the values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(served: Iterable[CompletedJob], ready_at: dict[str, float]) -> Table:
    """Jobs, waits and batch sizes by model and tier; cold jobs have a separate row."""
    rows: dict[tuple[str, str], list[CompletedJob]] = {}
    for job in served:
        rows.setdefault((job.model, f"{job.tier} (cold)" if cold(job, ready_at) else job.tier), []).append(job)
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    made.add_column("model")
    made.add_column("tier", no_wrap=True)
    for column in ("jobs", "p50 wait", "p99 wait", "mean batch"):
        made.add_column(column, justify="right")
    for (model, row), jobs in sorted(rows.items()):
        waited = waits(jobs)
        made.add_row(
            model,
            row,
            str(len(jobs)),
            f"{percentile(waited, 50):.2f} s",
            f"{percentile(waited, 99):.2f} s",
            f"{statistics.mean(job.result.timing.batch_size for job in jobs):.1f}",
        )
    return made


def cold(job: CompletedJob, ready_at: dict[str, float]) -> bool:
    """Whether the job was submitted before a worker of its model was ready."""
    return job.tier != "batch" and job.submitted_at < ready_at[job.model]


def waits(jobs: Iterable[CompletedJob]) -> list[float]:
    """Seconds from submission to claim, of the jobs whose producer recorded the time of submission."""
    return [job.result.timing.waited_s for job in jobs if job.result.timing.waited_s is not None]


def overtaking(served: Sequence[CompletedJob], ready_at: dict[str, float]) -> str:
    """A sentence on the interactive jobs that overtook queued batch jobs, with the median waits of both."""
    asked = [job for job in served if job.overtook and not cold(job, ready_at)]
    if not asked:
        return "no interactive job was submitted while batch jobs were queued: the batch is too small for this machine"
    batch = [job for job in served if job.tier == "batch" and job.model in {other.model for other in asked}]
    each = statistics.median(job.overtook for job in asked)
    return (
        f"{len(asked)} interactive jobs overtook {each:.0f} batch jobs each "
        f"(median) that had been queued before them: they waited {percentile(waits(asked), 50):.2f} s, the batch "
        f"{percentile(waits(batch), 50):.2f} s (p50)"
    )
