"""The calls that both clients make in the same way, as dialogues with Redis; see :class:`producer.client.Client`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import NoPermissionError

from .contract import heartbeat, keys
from .contract.errors import BrokerUnavailable
from .contract.fleet.settings import Settings
from .contract.message import celery_message
from .contract.message.job import Job, Status
from .contract.published import PublishedSizes
from .contract.queue.cancellation import cancel_all
from .contract.queue.withdrawal import Search, Whereabouts, search
from .contract.server.connection import database
from .contract.server.dialogue import Dialogue, pipelined
from .contract.server.redis_errors import broker_errors
from .estimates import admission, queued_job, readiness
from .estimates.on_arrival import Arrival

SEARCH_STEPS, SEARCH_JOBS = 3, 50
"""Steps in which queues are searched for a cancelled job, and the number of jobs for each further step: some
milliseconds of Redis. The autoscaler goes on where that is too few."""


def admit(
    settings: Settings, job: Job, policy: admission.Admission, tiers: Sequence[str] | None = None
) -> Dialogue[Job]:
    """See :meth:`producer.client.Client.admit`."""
    if not admission.concerns(job, policy):
        return job
    celery_message.write(job, settings)
    arrival = Arrival(job, settings, datetime.now(UTC))
    with broker_errors(settings, "asking for an estimate"):
        replies = yield pipelined(arrival.ask, raise_on_error=False)
        told = arrival.read(replies, (yield from heartbeat.reading()))
    return admission.admit(job, told, policy, arrival.now, settings, tiers)


def status(settings: Settings, job_id: str) -> Dialogue[Status]:
    """See :meth:`producer.client.Client.status`."""
    with broker_errors(settings, "asking for a status"):

        def ask(pipe: Any) -> None:
            pipe.get(keys.result(job_id))
            pipe.zscore(keys.cancelled(), job_id)

        stored, cancelled = yield pipelined(ask)
        if stored is not None and celery_message.is_final(stored):
            return celery_message.status(stored)
        beats = yield from heartbeat.reading()
    if any(heartbeat.mark(job_id) in beat.running for beat in beats):
        return Status.RUNNING
    return Status.QUEUED if cancelled is None else Status.CANCELLED  # no worker will start it


def waiting(settings: Settings, job_id: str, model: str | None, tier: str | None) -> Dialogue[queued_job.Waiting]:
    """See :meth:`producer.client.Client.waiting`."""
    try:
        with broker_errors(settings, "asking for an estimate"):
            return (yield from queued_job.look(settings, job_id, model, tier))
    except NoPermissionError as error:
        cure = "give model and tier to hear of the end of the queue, or ask as a user without limits"
        raise BrokerUnavailable(f"this Redis user may not look into queues: {cure} ({error})") from error


def obstacle(settings: Settings, model: str) -> Dialogue[str]:
    """See :meth:`producer.client.Client.obstacle`."""
    with broker_errors(settings, "asking for workers"):
        beats = yield from heartbeat.reading()
        led = yield lambda redis: redis.exists(keys.leader())
        sizes = PublishedSizes.parse((yield lambda redis: redis.get(keys.sizes())))
    return readiness.obstacle(model, beats, bool(led), sizes.models.get(model) if sizes else None)


def outlook(settings: Settings, model: str) -> Dialogue[readiness.ModelOutlook]:
    """See :func:`producer.estimates.readiness.outlook`."""
    with broker_errors(settings, "asking for workers"):
        beats = yield from heartbeat.reading()
        sizes = PublishedSizes.parse((yield lambda redis: redis.get(keys.sizes())))
    return readiness.outlook(model, beats, sizes.models.get(model) if sizes else None, time.time())


def cancel(
    settings: Settings, job_ids: Sequence[str], known: Whereabouts, writes: bool, *, searches: bool | None = None
) -> Dialogue[list[str]]:
    """Fix the results of jobs that have not ended, take those that are queued out of their queues, and tell the workers
    of the others; returns all of them.

    Workers are told of no others: they remember the id of a revoked job, and would cancel one that is submitted again
    under it.

    Args:
        writes: whether this user may write results and take jobs out of queues; the autoscaler does otherwise.
        searches: whether to search the queues; by default if it may.
    """
    if not job_ids:
        return []
    searches = writes if searches is None else searches
    with broker_errors(settings, "cancelling"):
        cancelled = yield from cancel_all(settings, job_ids, writes=writes)
        steps = SEARCH_STEPS + len(cancelled) // SEARCH_JOBS if searches and cancelled else 0
        running = yield from search(cancelled, Search(settings, known), steps)
        if running:
            told = celery_message.revocation(sorted(running))
            yield lambda redis: redis.publish(keys.pidbox(database(redis)), told)
    return cancelled


def forget(settings: Settings, job_ids: Iterable[str]) -> Dialogue[None]:
    """See :meth:`producer.client.Client.forget`."""
    names = [name for job_id in job_ids for name in (keys.result(job_id), keys.submission(job_id))]
    with broker_errors(settings, "forgetting results"):
        if names:
            yield lambda redis: redis.delete(*names)
