"""Reading messages from queues. Any client may push anything: this is where all of it is checked."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from producer.contract.message import message_body
from producer.contract.message.celery_message import is_id
from producer.contract.message.job import TASK
from producer.contract.message.message_body import SENDS, NotAJob, check_sends_nothing, read_json, read_object

MOST_FOLLOWERS = 100
"""Most tasks that are answered together with a message that is no job."""

LONGEST_S = 10.0**9
"""Longest time limit in seconds: clocks and timers overflow not far beyond."""


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of a Celery message (task protocol 2) that a worker uses. ``fields`` are the job's, unchecked."""

    id: str
    fields: dict[str, Any]
    expires: datetime | None
    time_limit_s: float | None
    wants_result: bool
    submitted_at: float | None
    """Unix seconds by the producer's clock: an untrusted time stamp, only to be shown."""
    told: dict[str, Any]
    """Fields of the message for monitors to show."""


_TOLD = ("root_id", "parent_id", "argsrepr", "kwargsrepr", "retries")
_TOLD_CHARACTERS = 1024


def read(message: bytes) -> Message:
    """Read a message and check that it is a job's.

    Raises:
        NotAJob: with the reason.
    """
    payload = read_object(read_json(message, "the message"), "the message")
    headers, properties = (read_object(payload.get(part), part) for part in ("headers", "properties"))
    if "task" not in headers and _first_protocol(_any_body(payload)) is not None:
        raise NotAJob("it is of Celery's task protocol 1: set task_protocol = 2, the default, where it is sent")
    if headers.get("task") != TASK:
        raise NotAJob(f"headers.task is {headers.get('task')!r:.80}, not {TASK!r}")
    job_id = headers.get("id")
    if not is_id(job_id):
        raise NotAJob("headers.id is not a text of up to 256 printable ASCII characters without spaces")
    if (kind := payload.get("content-type")) != "application/json":
        raise NotAJob(f"content-type is {kind!r:.80}: only application/json is accepted")
    if payload.get("content-encoding") not in ("utf-8", "UTF-8", "us-ascii"):
        raise NotAJob(f"content-encoding is {payload.get('content-encoding')!r:.80}, not utf-8")
    if headers.get("eta") is not None:
        # A worker would hold it under a lease until that time: a few such jobs would fill the worker.
        raise NotAJob("headers.eta is set: a worker does not wait for a job's time; submit it when it is to run")
    if headers.get("compression") is not None:
        raise NotAJob(f"headers.compression is {headers['compression']!r:.80}: nothing compressed is accepted")
    if not isinstance(headers.get("ignore_result"), bool | None):
        raise NotAJob("headers.ignore_result is not true or false")
    check_sends_nothing(headers)
    submitted_at = headers.get("submitted_at")
    return Message(
        id=job_id,
        fields=_fields(payload.get("body"), properties.get("body_encoding")),
        expires=_instant(headers.get("expires")),
        time_limit_s=_limit(headers.get("timelimit")),
        wants_result=not headers.get("ignore_result"),
        submitted_at=submitted_at if isinstance(submitted_at, int | float) else None,
        told={name: _short(headers[name]) for name in _TOLD if name in headers},
    )


def named(message: bytes) -> list[str]:
    """The ids of the tasks that a message that is no job names: first its own, then those that were to follow it, by
    chain, chord or link, whose results somebody may wait for. Empty if none can be read."""
    try:
        payload = json.loads(message)
        body = _any_body(payload)  # of one that is compressed, the headers still name it
        first = _first_protocol(body)
        headers = payload["headers"] if first is None else first
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    found = [headers.get("id")] if isinstance(headers, dict) else []
    parts: list[Any] = [first] if first is not None else body[2:3] if isinstance(body, list) else []
    while parts and len(found) < MOST_FOLLOWERS:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            options = part.get("options")
            found += [options.get("task_id")] if isinstance(options, dict) else []
            parts += [part.get(name) for name in SENDS]
            parts += [options.get(name) for name in ("chain", "chord")] if isinstance(options, dict) else []
            parts += [part["kwargs"]] if isinstance(part.get("kwargs"), dict) and "tasks" in part["kwargs"] else []
            parts += [part.get(name) for name in ("tasks", "header", "body")]
    return list(dict.fromkeys(each for each in found if is_id(each)))


def _first_protocol(body: object) -> dict[str, Any] | None:
    """The body of a message of task protocol 1, which holds the id; None if it is none."""
    return body if isinstance(body, dict) and "task" in body and "id" in body else None


def _any_body(payload: object) -> Any:
    """The value of a message's body; None if it is no JSON in base64."""
    try:
        return json.loads(base64.b64decode(payload["body"]))  # type: ignore[index]  # anything at all
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _instant(text: object) -> datetime | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise NotAJob("headers.expires is not a text")
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise NotAJob(f"headers.expires is {text!r:.80}, not an instant as ISO 8601 has it") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)  # Celery's own are in UTC


def _limit(value: object) -> float | None:
    """The hard one of [hard, soft]: a batch on a device cannot be asked to hurry."""
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_seconds, value)):
        raise NotAJob("headers.timelimit is not [seconds or null, seconds or null]")
    return value[0] or None


def _is_seconds(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LONGEST_S)


def _short(value: object) -> object:
    return value[:_TOLD_CHARACTERS] if isinstance(value, str) else value if isinstance(value, int) else None


def _fields(body: object, encoding: object) -> dict[str, Any]:
    if not isinstance(body, str):
        raise NotAJob("body is not a text")
    if encoding == "base64":
        try:
            decoded = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise NotAJob("body is not base64") from None
    elif encoding in (None, "utf-8"):
        decoded = body.encode()
    else:
        raise NotAJob(f"body_encoding is {encoding!r:.80}, not base64")
    return message_body.read(decoded)
