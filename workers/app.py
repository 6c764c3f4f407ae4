"""The Celery application of one worker: one model, one device, one engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.backends.redis import RedisBackend
from kombu import Queue

from producer.contract.message.job import TASK
from producer.contract.server.connection import broker_url, by_sentinel, transport_options

from .assignment import Assignment
from .remote import RemoteControl

if TYPE_CHECKING:
    from .pool import EnginePool


class NoBackend(RedisBackend):  # type: ignore[misc]  # Celery has no types
    """Celery's Redis backend, read-only: results are committed with their leases (``finish.lua``).

    On a revocation Celery would store a result under any id that a client names.
    """

    def _store_result(self, task_id: str, result: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG002  Celery's own
        return result


class WorkerApp(Celery):  # type: ignore[misc]  # Celery has no types
    """Celery, knowing its assignment."""

    assignment: Assignment
    remote: RemoteControl
    engine_pool: EnginePool | None = None
    """The pool, once Celery has made it."""
    worker: Any = None
    """Celery's worker, once it is made."""

    def _get_backend(self) -> NoBackend:
        # Not as "class+url" in the settings: Celery shows settings on request, and masks no password in that form.
        # The first of several sentinels is enough.
        return NoBackend(app=self, url=self.conf.result_backend.partition(";")[0])


def make_app(assignment: Assignment) -> WorkerApp:
    """Build the application. Every setting that departs from Celery's own says why."""
    settings = assignment.settings
    url = broker_url(settings)
    app = WorkerApp("stoker", broker=url, backend=url, set_as_current=False)
    app.assignment, app.remote = assignment, RemoteControl()
    app.conf.update(
        broker_transport=f"scheduler.transport:{'SentinelTransport' if by_sentinel(settings) else 'Transport'}",
        broker_transport_options={
            **transport_options(settings),
            "ledger": assignment.ledger,
            "commands": app.remote,
            "priority_steps": [0],  # a tier is a queue of its own; Kombu's steps would be queues nobody reads
        },
        broker_connection_retry_on_startup=True,
        broker_channel_error_retry=True,  # nor does it end when Redis refuses a command, as one without memory does
        broker_connection_max_retries=None,  # a worker outlives any outage of Redis; its launcher decides
        worker_pool="workers.pool:EnginePool",
        worker_send_task_events=True,
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_expires=int(settings.redis.result_ttl_s),
        task_acks_late=True,  # acknowledged when its result is written, in the same step
        task_time_limit=settings.model(assignment.model).limits.time_limit_s,
        worker_hijack_root_logger=False,
        task_queues=[Queue(name) for name in assignment.ledger.queue.queues],
        task_default_queue=assignment.ledger.queue.queues[0],
    )

    @app.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery has no types
    def infer(**job: object) -> object:
        """Gives jobs their name in monitors. The pool runs the jobs; this function is never called."""
        raise NotImplementedError(job)

    return app
