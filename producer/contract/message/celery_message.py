"""A job as a Celery message, and a Celery result as a ``Result``.

The message is what ``celery.send_task(TASK, kwargs=...)`` would push (task protocol 2,
https://docs.celeryq.dev/en/stable/internals/protocol.html), written without Celery's publishing
machinery, which costs about twenty times as much. ``tests/integration/test_envelope.py`` holds the two equal.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeGuard

from pydantic import ValidationError

from .. import errors, keys
from ..errors import InvalidJob, JobCancelled, JobExpired, JobFailed
from ..fleet import engine_abilities
from ..fleet.settings import Settings
from . import json_text, message_body
from .job import TASK, Job, Result, Status

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def write(job: Job, settings: Settings) -> tuple[str, bytes]:
    """The id of a job, and its message, which a worker can serve.

    Raises:
        UnknownModel, UnknownTier, InvalidJob: with what was found and what is allowed.
    """
    check(job, settings)
    job_id = job.id
    message = encode(job, job_id)
    check_size(message, job, settings)
    return job_id, message


def encode(job: Job, job_id: str) -> bytes:
    """The message to push onto the job's queue.

    Raises:
        InvalidJob: naming the place of a value that workers could not read, or would read as another.
    """
    queue = keys.queue(job.model, job.tier)
    message = {
        "headers": {
            "lang": "py",
            "task": TASK,
            "id": job_id,
            "shadow": None,
            "eta": None,
            "expires": job.ends_at.isoformat() if job.ends_at else None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": job_id,
            "parent_id": None,
            "argsrepr": "()",
            # Not the input: what users write must not appear on a monitor's screen.
            "kwargsrepr": f"{{'model': {job.model!r}, 'tier': {job.tier!r}, 'inputs': {len(job.items)}}}",
            "origin": _origin(),
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "submitted_at": round(time.time(), 6),
        },
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "properties": {
            "correlation_id": job_id,
            "reply_to": _REPLY_TO,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
        "body": base64.b64encode(_body(job)).decode(),
    }
    return json.dumps(message).encode()


def _body(job: Job) -> bytes:
    try:
        fields = job.model_dump(mode="json", exclude_defaults=True, exclude={"expires"})  # a header has it
        body = json.dumps([[], fields, _EMBED]).encode()
        told = message_body.read(body)
        # With the job itself, not with the fields: pydantic writes half a character in a key as question marks.
        if all(name == "deadline" or told.get(name) == getattr(job, name) for name in fields):
            return body
        reason = "it would be read as another job"
    except (ValueError, RecursionError, message_body.NotAJob) as error:
        reason = str(error)
    raise InvalidJob(_unreadable(job) or f"the job cannot be written as JSON: {reason}")


def _unreadable(job: Job) -> str:
    """The place in a job of what workers could not read, and why; empty when it is not found."""
    fields = {name: getattr(job, name) for name in type(job).model_fields}
    if found := json_text.first_fault(fields, json_text.DEEPEST - 1):  # one level is the body's
        return " ".join(found)
    for place, value, _ in json_text.walk(fields):
        if isinstance(value, dict) and value.keys() == set(message_body.TYPED):
            return (
                f"{place:.80} is an object of just {' and '.join(message_body.TYPED)}, which Celery's JSON reads as a "
                "value of another type; allowed: any other object"
            )
    return ""


_REPLY_TO = str(uuid.uuid4())


@cache
def _origin() -> str:
    return f"stoker{os.getpid()}@{socket.gethostname()}"


def check(job: Job, settings: Settings) -> None:
    """Refuse, before it is queued, a job that no worker could serve.

    Raises:
        UnknownModel, UnknownTier, InvalidJob: with what was found and what is allowed.
    """
    settings.tier(job.model, job.tier)
    model, items = settings.model(job.model), job.items
    limits = model.limits
    if not items:
        raise InvalidJob("input is empty: give one input, or a list of at least one")
    if any(not item for item in items):
        position = next(i for i, item in enumerate(items) if not item)
        raise InvalidJob(f"input {position} is empty")
    if len(items) > limits.max_inputs:
        raise InvalidJob(
            f"input holds {len(items)} items; models.{job.model}.limits.max_inputs allows {limits.max_inputs}"
        )
    engine_abilities.check(model, job.model, items, job.parameters)


def check_size(message: bytes, job: Job, settings: Settings) -> None:
    """Refuse a message that is too large to queue.

    Raises:
        InvalidJob: with its size and the model's limit, in bytes.
    """
    allowed = settings.model(job.model).limits.max_input_bytes
    if len(message) > allowed:
        raise InvalidJob(
            f"the job takes {len(message)} bytes; models.{job.model}.limits.max_input_bytes allows {allowed}: "
            "split it into several jobs"
        )


def revocation(job_ids: Sequence[str]) -> bytes:
    """What ``celery.control.revoke(job_ids, terminate=True)`` would publish to the workers (``keys.pidbox``).

    Written without Celery for the same reason as :func:`encode`; held equal by the same test.
    """
    body = {
        "method": "revoke",
        "arguments": {"task_id": [*job_ids], "terminate": True, "signal": "SIGTERM"},
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    message = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": 0},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return json.dumps(message).encode()


MOST_REVOKED = 10_000
"""Most jobs that one message revokes; the others of it are left alone."""

_ID = re.compile(r"[!-~]{1,256}")


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value can be the id of a job: up to 256 printable ASCII characters without spaces."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def revoked_ids(message: bytes) -> list[str]:
    """The jobs that a message to the workers' mailbox revokes; none if it is no revocation, whatever else it is."""
    try:
        payload = json.loads(message)
        command = json.loads(base64.b64decode(payload["body"]))
        if command["method"] not in ("revoke", "terminate"):
            return []
        return ids_of(command["arguments"]["task_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def ids_of(given: object) -> list[str]:
    """The ids of jobs in the argument of a revocation, which is one or a list."""
    return [each for each in (given if isinstance(given, list) else [given]) if is_id(each)][:MOST_REVOKED]


def cancelled_meta(job_id: str) -> bytes:
    """The stored result of a cancelled job, in Celery's format. Its id comes last, as ``withdraw.lua`` needs it."""
    return json.dumps(
        {
            "status": "REVOKED",
            "result": {
                "exc_type": "TaskRevokedError",
                "exc_message": ["cancelled"],
                "exc_module": "celery.exceptions",
            },
            "traceback": None,
            "children": [],
            "date_done": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "task_id": job_id,
        }
    ).encode()


_STATUS = {
    "SUCCESS": Status.SUCCEEDED,
    "FAILURE": Status.FAILED,
    "REVOKED": Status.CANCELLED,
    "STARTED": Status.RUNNING,
}


def status(stored: bytes | str) -> Status:
    """The status of a job, from its stored result. What is not a result, which anybody may publish, counts as none."""
    return _STATUS.get(str(_meta(stored).get("status")), Status.QUEUED)


def is_final(stored: bytes | str | None) -> TypeGuard[bytes]:
    """Whether a stored result is final."""
    return stored is not None and status(stored) in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


def decode(stored: bytes | str) -> Result:
    """The result of a job that ended.

    Raises:
        JobFailed, or more specifically InvalidJob, JobCancelled, JobExpired.
    """
    meta = _meta(stored)
    job_id, value = str(meta.get("task_id")), meta.get("result")
    if not isinstance(value, dict):
        raise JobFailed(f"job {job_id} has a result that is not ours: {value!r:.80}")
    if meta.get("status") == "SUCCESS":
        try:
            return Result.model_validate({**value, "id": job_id})
        except (TypeError, ValidationError) as error:
            raise JobFailed(f"job {job_id} has a result that is not ours: {error}") from None
    raise _failure(job_id, value)


def _meta(stored: bytes | str) -> dict[str, Any]:
    try:
        meta = json.loads(stored)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _failure(job_id: str, value: dict[str, Any]) -> errors.StokerError:
    kind = str(value.get("exc_type", "JobFailed"))
    said = value.get("exc_message")
    message = "; ".join(map(str, said)) if isinstance(said, list) else str(said or "")
    if kind == "TaskRevokedError":
        if message == "expired":
            return JobExpired(f"job {job_id}: its deadline passed before it finished", kind)
        return JobCancelled(f"job {job_id} was cancelled", kind)
    known = getattr(errors, kind, None)
    if known in (errors.ServerRefused, errors.ServerBusy):
        return _of_server(known, [str(part) for part in value.get("exc_message") or ()])
    if isinstance(known, type) and issubclass(known, InvalidJob):
        return known(message)
    return JobFailed(f"job {job_id} failed: {kind}: {message}", kind)


def _of_server(kind: type[errors.ServerRefused] | type[errors.ServerBusy], parts: list[str]) -> errors.StokerError:
    try:
        return kind(*parts)
    except (TypeError, ValueError):
        return JobFailed("; ".join(parts), kind.__name__)
