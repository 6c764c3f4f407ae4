"""A job between Celery and the engine, and how its outcome becomes the value of its Celery task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import Ignore, Retry

from producer.errors import Preempted
from producer.job import Job, Result, Timing

from .engines.protocol import Outcome


@dataclass(slots=True, weakref_slot=True)
class Running:
    """One task, from the moment that Celery handed it over. ``args`` is what ``target`` is called with."""

    lease: str
    job_id: str
    worker: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    callback: Callable[[Any], None]
    waited_s: float | None
    give_up: Callable[[str], None]
    """Cancels it on the device, by its lease, and drops whatever outcome it still has."""
    job: Job | None = None
    ends: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    """When it must have ended, on the monotonic clock in seconds, and how Celery is told that it has not."""
    deferred: bool = False
    """It was put aside, to be tried again."""

    def terminate(self, signum: int) -> None:  # noqa: ARG002  Celery passes a signal; there is no process to signal
        """Celery revokes the task, and has stored its result already: give it up on the device."""
        self.give_up(self.lease)

    def end(self, outcome: Outcome) -> None:
        """Run Celery's side of the task around its outcome: trace, result, events, acknowledgement."""
        _ending[self.lease] = (self, outcome)
        try:
            value = self.target(*self.args)
        finally:
            del _ending[self.lease]
        self.callback(value)


_ending: dict[str, tuple[Running, Outcome]] = {}
"""Jobs whose Celery task runs at this moment, by lease; only the event loop's thread gets here."""


def collect(task: Any) -> dict[str, Any]:
    """The value of the task that is running, or its error raised: this is the body of every job's task.

    Raises:
        InvalidJob: the job was at fault, and trying again cannot help.
        Retry: the engine was, and the job was put aside to be tried again. EngineError: it was, too often.
        Ignore: it was given back, and is no longer ours to end.
    """
    running, outcome = _ending[task.request.properties["delivery_tag"]]
    if isinstance(outcome.error, Preempted):
        raise Ignore
    if running.deferred:
        raise Retry(exc=outcome.error)
    if outcome.error is not None:
        raise outcome.error
    assert running.job is not None
    assert outcome.outputs is not None
    result = Result(
        output=outcome.outputs if isinstance(running.job.input, list) else outcome.outputs[0],
        usage=outcome.usage,
        timing=Timing(
            waited_s=running.waited_s, ran_s=outcome.ran_s, batch_size=outcome.batch_size, worker=running.worker
        ),
    )
    return result.model_dump(exclude={"id"})


def waited(headers: dict[str, Any]) -> float | None:
    """Seconds from submission to the claim, for producers that stamp their messages."""
    submitted, claimed = headers.get("submitted_at"), headers.get("claimed_at")
    if not isinstance(submitted, int | float) or not isinstance(claimed, float):
        return None
    return max(0.0, round(claimed - submitted, 6))
