"""The lines of a batch's input: numbered, bounded, and read as either of two forms.

Ours is ``{"custom_id", "input", "parameters", "model"}``; OpenAI's, ``{"custom_id", "method", "url", "body"}``
(https://platform.openai.com/docs/guides/batch).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from producer.contract.errors import InvalidJob, StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.message import json_text

OURS = ("custom_id", "input", "parameters", "model")
OPENAI = ("custom_id", "method", "url", "body")
LONGEST_PER_INPUT_BYTE = 8
"""JSON may write one byte of input as up to six (``\\u00e9``); any longer line holds no acceptable input."""


class LineError(InvalidJob):
    """A line is invalid. ``code`` and ``param`` are those of OpenAI's batch errors."""

    def __init__(self, message: str, code: str = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Line:
    """An input line. ``fields`` are those of its form, without the custom_id; an invalid line has an ``error``.

    ``size`` is its length in bytes; ``given`` says whether it had a custom_id of its own.
    """

    number: int
    custom_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    error: StokerError | None = None
    size: int = 0
    given: bool = False

    @property
    def is_openai(self) -> bool:
        """Whether it has OpenAI's form."""
        return "body" in self.fields


def longest(settings: Settings, model: str | None = None) -> int:
    """Largest length of a line for the model, or for any model, in bytes."""
    models = [settings.model(model)] if model is not None else list(settings.models.values())
    return LONGEST_PER_INPUT_BYTE * max((each.limits.max_input_bytes for each in models), default=1)


def read(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1. A line over ``longest`` bytes is cut to one byte more than
    that."""
    number = 0
    while raw := file.readline(longest + 1):
        number += 1
        rest = raw
        while len(rest) > longest and not rest.endswith(b"\n"):
            rest = file.readline(longest + 1)
        if not raw.isspace():
            yield number, raw


def parse(number: int, raw: bytes, longest: int) -> Line:
    """Read one input line; if it is invalid, its ``error`` says why."""
    custom_id, given = f"line-{number}", False
    try:
        if len(raw) > longest:
            raise LineError(f"the line is longer than {longest} bytes: split its input into several lines")
        fields, wrong = _object(raw)
        if "custom_id" in fields:
            custom_id, given = _custom_id(fields.pop("custom_id")), True
        if wrong is not None:
            raise wrong
        _known(fields)
    except LineError as error:
        return Line(number, custom_id, error=error, size=len(raw), given=given)
    return Line(number, custom_id, fields, size=len(raw), given=given)


def _custom_id(found: object) -> str:
    if not isinstance(found, str):
        raise LineError(f"custom_id = {found!r:.80}: it is a string", param="custom_id")
    return found


def _known(fields: dict[str, Any]) -> None:
    openai = any(name in fields for name in OPENAI[1:])
    allowed = OPENAI if openai else OURS
    if unknown := fields.keys() - set(allowed):
        name = min(unknown)
        raise LineError(f"unknown field {', '.join(sorted(unknown))!r:.80}; allowed: {', '.join(allowed)}", param=name)
    if not openai and "input" not in fields:
        raise LineError("input is missing: a text, an object, or a list of them", param="input")
    if openai and fields.get("method") != "POST":
        raise LineError(f"method = {fields.get('method')!r:.80}; allowed: 'POST'", "invalid_method", "method")
    if openai and not isinstance(fields.get("body"), dict):
        raise LineError("body is missing: an object, the request that the url would get", param="body")


def _object(raw: bytes) -> tuple[dict[str, Any], LineError | None]:
    """The fields of a line; also of one that can only be read leniently, for its custom_id, beside what is wrong."""
    wrong = None
    try:
        found = json_text.read(raw.removeprefix(json_text.BOM))
    except json_text.NotJson as error:
        wrong = LineError(f"the line is not JSON: {error}", "invalid_json_line", error.place or None)
        found = error.lenient
        if found is None:
            raise wrong from None
    if not isinstance(found, dict):
        raise LineError(f"the line is {type(found).__name__}, not an object with the field input", "invalid_json_line")
    return found, wrong
