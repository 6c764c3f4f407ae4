"""Reading what stands on a queue. Anybody may push anything: nothing unchecked gets past here."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from producer.errors import StokerError
from producer.job import TASK


class NotAJob(StokerError):
    """The message on a queue is not a job; the text says why."""


def read(message: bytes) -> dict[str, Any]:
    """A Celery message (task protocol 2) as Kombu's payload, checked so far that Celery can take it.

    Raises:
        NotAJob: with what is wrong.
    """
    payload = _object(_json(message, "the message"), "the message")
    headers, properties = (_object(payload.get(part), part) for part in ("headers", "properties"))
    if headers.get("task") != TASK:
        raise NotAJob(f"headers.task is {headers.get('task')!r:.80}, not {TASK!r}")
    if not isinstance(headers.get("id"), str) or not 0 < len(headers["id"]) <= 256:
        raise NotAJob("headers.id is not a text of up to 256 characters")
    if (kind := payload.get("content-type")) != "application/json":
        raise NotAJob(f"content-type is {kind!r:.80}: only application/json is accepted")
    if payload.get("content-encoding") not in ("utf-8", "UTF-8", "us-ascii"):
        raise NotAJob(f"content-encoding is {payload.get('content-encoding')!r:.80}, not utf-8")
    for field in ("eta", "expires"):
        if not isinstance(headers.get(field), str | None):
            raise NotAJob(f"headers.{field} is not a text")
    _check_body(payload.get("body"), properties.get("body_encoding"))
    return payload


def _check_body(body: object, encoding: object) -> None:
    if not isinstance(body, str):
        raise NotAJob("body is not a text")
    if encoding == "base64":
        try:
            decoded: str | bytes = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise NotAJob("body is not base64") from None
    elif encoding in (None, "utf-8"):
        decoded = body
    else:
        raise NotAJob(f"body_encoding is {encoding!r:.80}, not base64")
    parts = _json(decoded, "the body")
    if not (isinstance(parts, list) and len(parts) == 3):
        raise NotAJob("the body is not [args, kwargs, embed]: only task protocol 2 is accepted")
    args, kwargs, embed = parts
    if args or not isinstance(args, list):
        raise NotAJob("the job's fields are not given by name")
    _object(kwargs, "the job")
    _object({} if embed is None else embed, "embed")


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise NotAJob(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise NotAJob(f"{what} is not JSON: {error}"[:200]) from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAJob(f"{what} is not an object")
    return value
