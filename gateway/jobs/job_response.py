"""The job object in the gateway's responses."""

from __future__ import annotations

from typing import Any

from producer.collect import outcome
from producer.contract.errors import StokerError
from producer.contract.message import celery_message
from producer.contract.message.job import Status

from ..openai.api_error import problem_of
from .job_record import JobRecord


def job_object(record: JobRecord, status: Status, stored: bytes | None = None) -> dict[str, Any]:
    """A job's state; with its stored result, when it has ended, its output or its error."""
    told: dict[str, Any] = {
        "id": record.id,
        "object": "job",
        "status": status.value,
        "model": record.model,
        "tier": record.tier,
        "created_at": int(record.created_at),
        "metadata": record.metadata,
        "output": None,
        "usage": None,
        "error": None,
    }
    if record.notice:
        told["webhook"] = {
            "failures": record.notice.failures,
            "last_error": record.notice.last_error or None,
            "delivered_at": record.notice.delivered_at,
            "given_up_at": record.notice.given_up_at,
        }
    if stored is None:
        return told
    ended = outcome(stored)
    if isinstance(ended, StokerError):
        return {**told, "error": problem_of(ended).body["error"]}
    return {**told, "output": ended.output, "usage": ended.usage, "timing": ended.timing.model_dump()}


def ended(record: JobRecord, stored: bytes) -> dict[str, Any]:
    """The state of a job that has ended."""
    return job_object(record, celery_message.status(stored), stored)
