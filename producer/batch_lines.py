"""The lines of a batch: an input line read as a request, an ended job written as an output line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from .errors import InvalidJob, JobFailed, StokerError
from .job import Result

FIELDS = ("custom_id", "input", "parameters")
LONGEST_PER_INPUT_BYTE = 8
"""JSON may write one byte of input as up to six (``\\u00e9``); any longer line holds no acceptable input."""


@dataclass(frozen=True, slots=True)
class Line:
    """An input line. ``fields`` are those of a job; a line that cannot be one has an ``error``."""

    number: int
    custom_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    error: InvalidJob | None = None


def read(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1. One over ``longest`` bytes is cut to one byte more."""
    number = 0
    while raw := file.readline(longest + 1):
        number += 1
        rest = raw
        while len(rest) > longest and not rest.endswith(b"\n"):
            rest = file.readline(longest + 1)
        if not raw.isspace():
            yield number, raw


def parse(number: int, raw: bytes, longest: int) -> Line:
    """Read one input line; whatever is wrong with it is its ``error``."""
    custom_id = f"line-{number}"
    try:
        if len(raw) > longest:
            raise InvalidJob(f"the line is longer than {longest} bytes: split its input into several lines")
        fields = _object(raw)
        given = fields.pop("custom_id", custom_id)
        if not isinstance(given, str):
            raise InvalidJob(f"custom_id = {given!r:.80}: it is a string")
        custom_id = given
        if unknown := fields.keys() - set(FIELDS):
            raise InvalidJob(f"unknown field {', '.join(sorted(unknown))!r:.80}; allowed: {', '.join(FIELDS)}")
        if "input" not in fields:
            raise InvalidJob("input is missing: a text, an object, or a list of them")
    except InvalidJob as error:
        return Line(number, custom_id, error=error)
    return Line(number, custom_id, fields)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError, too
        raise InvalidJob(f"the line is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidJob(f"the line is {type(found).__name__}, not an object with the field input")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def write(number: int, custom_id: str, ended: Result | StokerError) -> bytes:
    """The output line of a job that ended, or of a line that never became one."""
    line: dict[str, Any] = {"custom_id": custom_id, "line": number}
    if isinstance(ended, Result):
        line |= ended.model_dump(mode="json", exclude={"id"})
    else:
        # Only a plain JobFailed stands for something else: the error on the worker.
        kind = ended.kind if type(ended) is JobFailed else type(ended).__name__
        line["error"] = {"kind": kind, "message": str(ended)}
    # ASCII, so that any string JSON can write can be written, half of a surrogate pair too.
    return json.dumps(line).encode() + b"\n"
