"""Reading messages from queues. Any client may push anything: this is where all of it is checked."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kombu.utils import json as celery_json
from pydantic_core import from_json

from producer.contract.errors import StokerError
from producer.contract.job import TASK

SENDS = ("callbacks", "errbacks", "chain", "chord")
"""Parts of a message that name further tasks, which Celery's workers would send when this one has ended."""

LONGEST_S = 10.0**9
"""Longest time limit in seconds: clocks and timers overflow not far beyond."""

_ID = re.compile(r"[!-~]{1,256}")


class NotAJob(StokerError):
    """A message is not a job; the text says why."""


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
    payload = _object(_json(message, "the message"), "the message")
    headers, properties = (_object(payload.get(part), part) for part in ("headers", "properties"))
    if headers.get("task") != TASK:
        raise NotAJob(f"headers.task is {headers.get('task')!r:.80}, not {TASK!r}")
    job_id = headers.get("id")
    if not isinstance(job_id, str) or _ID.fullmatch(job_id) is None:
        raise NotAJob("headers.id is not a text of up to 256 printable ASCII characters without spaces")
    if (kind := payload.get("content-type")) != "application/json":
        raise NotAJob(f"content-type is {kind!r:.80}: only application/json is accepted")
    if payload.get("content-encoding") not in ("utf-8", "UTF-8", "us-ascii"):
        raise NotAJob(f"content-encoding is {payload.get('content-encoding')!r:.80}, not utf-8")
    if headers.get("eta") is not None:
        # It would be held and leased until then: a few of them would fill the worker.
        raise NotAJob("headers.eta is set: a worker does not wait for a job's time; submit it when it is to run")
    if headers.get("compression") is not None:
        raise NotAJob(f"headers.compression is {headers['compression']!r:.80}: nothing compressed is accepted")
    if not isinstance(headers.get("ignore_result"), bool | None):
        raise NotAJob("headers.ignore_result is not true or false")
    _check_sends_nothing(headers)
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
    parts = _json(decoded, "the body")
    if not (isinstance(parts, list) and len(parts) == 3):
        raise NotAJob("the body is not [args, kwargs, embed]: only task protocol 2 is accepted")
    args, kwargs, embed = parts
    if args or not isinstance(args, list):
        raise NotAJob("the job's fields are not given by name")
    embed = _object({} if embed is None else embed, "embed")
    _check_sends_nothing(embed)
    if more := embed.keys() - set(SENDS):
        raise NotAJob(f"embed holds {sorted(more)!r:.80}; allowed: nothing but empty {', '.join(SENDS)}")
    return _object(_typed(decoded)[1] if b"__type__" in decoded else kwargs, "the job")


def _check_sends_nothing(part: dict[str, Any]) -> None:
    """Refuse messages that would make the worker send further tasks to any queue on a producer's behalf.

    They are refused rather than ignored: a client that waits for the following task would wait for ever.
    """
    if given := [name for name in SENDS if part.get(name)]:
        raise NotAJob(
            f"it names tasks to send when it has ended ({', '.join(given)}), as link, link_error, chain and chord do: "
            "a worker sends none; wait for its result, and send them then"
        )


def _json(text: bytes, what: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)  # Python's own reads NaN and Infinity, which nobody else does
    except ValueError as error:
        raise NotAJob(f"{what} is not JSON: {error}"[:200]) from None


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is no number there")


_strict = partial(json.loads, parse_constant=_not_json)


def _typed(body: bytes) -> Any:
    """The body as stock Celery reads it, which writes a date as an object with a ``__type__``."""
    try:
        return celery_json.loads(body.decode(), _loads=_strict)
    except Exception as error:  # its decoders have errors of their own
        raise NotAJob(f"the body holds a value that is not what it says: {type(error).__name__}") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAJob(f"{what} is not an object")
    return value
