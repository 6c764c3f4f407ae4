"""The body of a message, as workers read it. Submission reads what it wrote by the same rules, before it is queued."""

from __future__ import annotations

import json
from typing import Any

from ..errors import StokerError
from . import json_text

SENDS = ("callbacks", "errbacks", "chain", "chord")
"""Parts of a message that name further tasks, which Celery's workers would send when this one has ended."""

TYPED = ("__type__", "__value__")
"""Keys of an object that stands for a value of another type, such as a date, in Celery's JSON."""


class NotAJob(StokerError):
    """A message is not a job; the text says why."""


def read(body: bytes) -> dict[str, Any]:
    """The fields of a job, unchecked, from the decoded body of a message (task protocol 2).

    Raises:
        NotAJob: with the reason.
    """
    parts = read_json(body, "the body")
    if not (isinstance(parts, list) and len(parts) == 3):
        raise NotAJob("the body is not [args, kwargs, embed]: only task protocol 2 is accepted")
    args, kwargs, embed = parts
    if args or not isinstance(args, list):
        raise NotAJob("the job's fields are not given by name")
    embed = read_object({} if embed is None else embed, "embed")
    check_sends_nothing(embed)
    if more := embed.keys() - set(SENDS):
        raise NotAJob(f"embed holds {sorted(more)!r:.80}; allowed: nothing but empty {', '.join(SENDS)}")
    return read_object(_typed(body)[1] if TYPED[0].encode() in body else kwargs, "the job")


def check_sends_nothing(part: dict[str, Any]) -> None:
    """Refuse messages that would make the worker send further tasks to any queue on a producer's behalf.

    They are refused rather than ignored: a client that waits for the following task would wait for ever.

    Raises:
        NotAJob: naming the parts of the message that send tasks.
    """
    if given := [name for name in SENDS if part.get(name)]:
        raise NotAJob(
            f"it names tasks to send when it has ended ({', '.join(given)}), as link, link_error, chain and chord do: "
            "a worker sends none; wait for its result, and send them then"
        )


def read_json(text: bytes, what: str) -> Any:
    """The value of a JSON text.

    Raises:
        NotAJob: with the reason.
    """
    try:
        return json_text.read(text)
    except json_text.NotJson as error:
        raise NotAJob(f"{what} is not JSON: {error}"[:200]) from None


def read_object(value: object, what: str) -> dict[str, Any]:
    """The value, if it is an object.

    Raises:
        NotAJob: it is none.
    """
    if not isinstance(value, dict):
        raise NotAJob(f"{what} is not an object")
    return value


def _typed(body: bytes) -> Any:
    """The body as stock Celery reads it, which writes a date as an object with a ``__type__``."""
    from kombu.utils import json as celery_json  # only for such objects: to import it takes longer than to submit

    try:
        return celery_json.loads(body.decode(), _loads=json.loads)
    except Exception as error:  # its decoders have errors of their own
        raise NotAJob(f"the body holds a value that is not what it says: {type(error).__name__}") from None
