"""Task events and the state that ``celery inspect`` reads, for the jobs of a worker.

Jobs do not pass through Celery's own request and trace, which took three quarters of a worker's time; this module sends
the same events (https://docs.celeryq.dev/en/stable/userguide/monitoring.html#event-reference).

Touches of Celery 5.7 that are not documented: ``worker.state.requests``, ``active_requests``, ``total_count`` and
``all_total_count``, ``EventDispatcher.buffer_limit``, ``on_send_buffered`` and ``flush``.
"""

from __future__ import annotations

from typing import Any

from celery.worker import state

from producer.contract.message.job import TASK

from .engines.protocol import Outcome
from .running import Running

NEVER = 1_000_000
"""Buffer limit that Celery never reaches, so that it does not publish by itself."""

AT_ONCE = 200
"""Events in one message: publishing fewer at a time costs more than the events do."""


class Monitor:
    """Sends the task events of jobs, many in one message: see :meth:`flush`."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._told = 0

    def taken(self, running: Running) -> None:
        """A job was claimed and goes to the engine."""
        state.requests[running.id] = running
        state.active_requests.add(running)
        state.total_count[TASK] += 1
        state.all_total_count[0] += 1
        told = running.message.told
        self._send(
            "task-received",
            running,
            name=TASK,
            args=told.get("argsrepr", ""),
            kwargs=told.get("kwargsrepr", ""),
            root_id=told.get("root_id"),
            parent_id=told.get("parent_id"),
            retries=told.get("retries", 0),
            eta=None,
            expires=running.message.expires and running.message.expires.isoformat(),
        )
        self._send("task-started", running)

    def left(self, running: Running) -> None:
        """A job has left this worker."""
        state.active_requests.discard(running)
        if state.requests.get(running.id) is running:
            del state.requests[running.id]

    def succeeded(self, running: Running, outcome: Outcome) -> None:
        """A job has succeeded. The event has its usage, never its output."""
        cost = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in outcome.usage.items())
        self._send(
            "task-succeeded",
            running,
            result=f"{cost or 'done'} in a batch of {outcome.batch_size}",
            runtime=outcome.ran_s,
        )

    def failed(self, running: Running, error: Exception) -> None:
        """A job has failed."""
        self._send("task-failed", running, exception=repr(error), traceback="")

    def refused(self, job_id: str, error: Exception) -> None:
        """A message was no job, and became a dead letter."""
        self._publish("task-received", job_id, name=TASK, args="", kwargs="", retries=0, eta=None, expires=None)
        self._publish("task-failed", job_id, exception=repr(error), traceback="")

    def retried(self, running: Running, error: Exception) -> None:
        """A job was deferred, to be tried again."""
        self._send("task-retried", running, exception=repr(error), traceback="")

    def revoked(self, running: Running, *, terminated: bool, expired: bool) -> None:
        """A job was cancelled or has expired."""
        self._send("task-revoked", running, terminated=terminated, signum=None, expired=expired)

    @property
    def full(self) -> bool:
        """Whether there are enough events for a message."""
        return self._told >= AT_ONCE

    def flush(self) -> None:
        """Publish the buffered events."""
        if self._told and (dispatcher := self._dispatcher):
            self._told = 0
            dispatcher.flush()

    @property
    def _dispatcher(self) -> Any:
        """Celery's event dispatcher, a new one after every reconnect; None without a connection."""
        consumer = self._app.worker.consumer if self._app.worker else None
        return consumer.event_dispatcher if consumer is not None else None

    def _send(self, event: str, running: Running, **fields: Any) -> None:
        self._publish(event, running.id, **fields)

    def _publish(self, event: str, job_id: str, **fields: Any) -> None:
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        if dispatcher.buffer_limit != NEVER:
            dispatcher.buffer_limit, dispatcher.on_send_buffered = NEVER, None
        self._told += 1
        dispatcher.send(event, uuid=job_id, **fields)
