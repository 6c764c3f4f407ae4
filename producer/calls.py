"""The calls that both clients make in the same way, as dialogues with Redis; see :class:`producer.client.Client`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import NoPermissionError

from .contract import celery_message, heartbeat, keys
from .contract.dialogue import Dialogue, pipelined
from .contract.errors import BrokerUnavailable
from .contract.job import Job, Status
from .contract.redis_errors import broker_errors
from .contract.settings import Settings
from .estimates import admission, queued_job, readiness
from .estimates.on_arrival import Arrival
from .submission import CANCEL_LUA


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
        stored = yield lambda redis: redis.get(keys.result(job_id))
        if stored is not None and celery_message.is_final(stored):
            return celery_message.status(stored)
        beats = yield from heartbeat.reading()
    return Status.RUNNING if any(heartbeat.mark(job_id) in beat.running for beat in beats) else Status.QUEUED


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
    return readiness.obstacle(model, beats, bool(led))


def cancel(settings: Settings, job_id: str) -> Dialogue[bool]:
    """Keep a job from ending otherwise, in one round trip; running workers are not told."""
    with broker_errors(settings, "cancelling"):
        cancelled = yield lambda redis: redis.register_script(CANCEL_LUA)(*_cancellation(settings, job_id))
    return bool(cancelled)


def cancel_many(settings: Settings, job_ids: Sequence[str]) -> Dialogue[list[str]]:
    """As :func:`cancel`, of many jobs in one pipelined write; returns those that had not ended.

    Only these are to be revoked: workers remember the id of a revoked job, and would cancel one that is submitted again
    under it.
    """
    if not job_ids:
        return []
    with broker_errors(settings, "cancelling"):
        sha = yield lambda redis: redis.script_load(CANCEL_LUA)

        def ask(pipe: Any) -> None:
            for job_id in job_ids:
                names, arguments = _cancellation(settings, job_id)
                pipe.evalsha(sha, len(names), *names, *arguments)

        cancelled = yield pipelined(ask)
    return [job_id for job_id, done in zip(job_ids, cancelled, strict=True) if done]


def forget(settings: Settings, job_ids: Iterable[str]) -> Dialogue[None]:
    """See :meth:`producer.client.Client.forget`."""
    names = [name for job_id in job_ids for name in (keys.result(job_id), keys.submission(job_id))]
    with broker_errors(settings, "forgetting results"):
        if names:
            yield lambda redis: redis.delete(*names)


def _cancellation(settings: Settings, job_id: str) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of ``cancel.lua``."""
    ttl_ms = int(settings.redis.result_ttl_s * 1000)
    return [keys.result(job_id), keys.cancelled()], [job_id, celery_message.cancelled_meta(job_id), ttl_ms]
