"""Reading what stands on a queue. Anybody may push anything: nothing unchecked gets past here."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.app.task import Context
from kombu.utils import json as celery_json

from producer.errors import StokerError
from producer.job import TASK

SENDS = ("callbacks", "errbacks", "chain", "chord")
"""Where a message names further tasks, which Celery would have the worker send when this one has ended."""

LONGEST_S = 10.0**9
"""More seconds than any time limit has: clocks and timers overflow not far beyond."""

_PROTOCOL = {
    "id",
    "eta",
    "expires",
    "group",
    "group_index",
    "ignore_result",
    "origin",
    "parent_id",
    "replaced_task_nesting",
    "retries",
    "root_id",
    "stamped_headers",
    "stamps",
    "timelimit",
}
_STEERING = frozenset(dir(Context)) - _PROTOCOL
"""Headers that Celery would take for its own knowledge of a running task, and its methods. The name is one: shown
in logs and on monitors, it is not the producer's to choose."""

_ID = re.compile(r"[!-~]{1,256}")


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
    if not isinstance(headers.get("id"), str) or _ID.fullmatch(headers["id"]) is None:
        raise NotAJob("headers.id is not a text of up to 256 printable ASCII characters without spaces")
    if (kind := payload.get("content-type")) != "application/json":
        raise NotAJob(f"content-type is {kind!r:.80}: only application/json is accepted")
    if payload.get("content-encoding") not in ("utf-8", "UTF-8", "us-ascii"):
        raise NotAJob(f"content-encoding is {payload.get('content-encoding')!r:.80}, not utf-8")
    if not isinstance(headers.get("expires"), str | None):
        raise NotAJob("headers.expires is not a text")
    if headers.get("eta") is not None:
        # Celery would hold it, leased, until then: a few of them and the worker has room for nothing else.
        raise NotAJob("headers.eta is set: a worker does not wait for a job's time; submit it when it is to run")
    if headers.get("compression") is not None:  # Celery would drop, without a trace, what it cannot decompress
        raise NotAJob(f"headers.compression is {headers['compression']!r:.80}: nothing compressed is accepted")
    if not _is_limit(headers.get("timelimit")):
        raise NotAJob("headers.timelimit is not [seconds or null, seconds or null]")
    if not isinstance(headers.get("ignore_result"), bool | None):
        raise NotAJob("headers.ignore_result is not true or false")
    _check_sends_nothing(headers)
    for name in headers.keys() & _STEERING:
        del headers[name]
    _check_body(payload.get("body"), properties.get("body_encoding"))
    return payload


def _is_limit(value: object) -> bool:
    if not isinstance(value, list):
        return value is None
    return len(value) == 2 and all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool) and 0 <= each < LONGEST_S)
        for each in value
    )


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
    parts = _json(
        decoded, "the body", partial(celery_json.loads, _loads=_strict)
    )  # as Celery will, which reads more than JSON into it
    if not (isinstance(parts, list) and len(parts) == 3):
        raise NotAJob("the body is not [args, kwargs, embed]: only task protocol 2 is accepted")
    args, kwargs, embed = parts
    if args or not isinstance(args, list):
        raise NotAJob("the job's fields are not given by name")
    _object(kwargs, "the job")
    embed = _object({} if embed is None else embed, "embed")
    _check_sends_nothing(embed)
    if more := embed.keys() - set(SENDS):  # Celery would let them overwrite whatever it knows of the task
        raise NotAJob(f"embed holds {sorted(more)!r:.80}; allowed: nothing but empty {', '.join(SENDS)}")


def _check_sends_nothing(part: dict[str, Any]) -> None:
    """Refuse what would make the worker a sender of any task, to any queue that it may write, for any producer.

    Refused rather than ignored: whoever waits for the task that was to follow would wait for ever.
    """
    if given := [name for name in SENDS if part.get(name)]:
        raise NotAJob(
            f"it names tasks to send when it has ended ({', '.join(given)}), as link, link_error, chain and chord do: "
            "a worker sends none; wait for its result, and send them then"
        )


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is no number there")


_strict = partial(json.loads, parse_constant=_not_json)  # Python's own reads NaN and Infinity, nobody else does


def _json(text: str | bytes, what: str, loads: Callable[..., Any] = _strict) -> Any:
    try:
        # JSON is UTF-8; Python would guess others, which Lua, reading the id of a dead letter, would not.
        return loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise NotAJob(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise NotAJob(f"{what} is not JSON: {error}"[:200]) from None
    except Exception as error:  # of a value with a __type__, whose decoders have errors of their own
        raise NotAJob(f"{what} holds a value that is not what it says: {type(error).__name__}") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotAJob(f"{what} is not an object")
    return value
