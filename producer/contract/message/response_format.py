"""Structured output: the ``response_format`` of a request, checked before anything is compiled.

OpenAI's forms, and ``{"type": "regex", "regex": ...}`` and ``{"type": "choice", "choices": [...]}``. The limits keep
what one request can make a worker compile small; the worker checks the rest, with limits of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidJob

MOST_SCHEMA = 65_536
"""Longest schema, in characters of JSON."""
MOST_DEPTH = 50
"""Most levels of arrays and objects within each other in a schema."""
MOST_REGEX = 8_192
"""Longest regular expression, in characters."""
MOST_CHOICES = 1_000
"""Most choices; together they are at most ``MOST_SCHEMA`` characters."""

Kind = Literal["json", "regex", "choice", "lark"]


@dataclass(frozen=True, slots=True)
class Structure:
    """The structure that an answer has. Its ``source`` is a JSON schema, a regular expression, the JSON of a list of
    choices, or a grammar in llguidance's variant of Lark, by its ``kind``."""

    kind: Kind
    source: str

    @classmethod
    def of(cls, response_format: Any) -> Structure | None:
        """The structure that a ``response_format`` asks for; None for free text.

        Raises:
            InvalidJob: naming what is wrong or too large.
        """
        if response_format is None:
            return None
        kind = response_format.get("type") if isinstance(response_format, dict) else None
        if kind == "text":
            return None
        if kind == "json_object":
            return cls("json", '{"type": "object"}')
        if kind == "json_schema":
            return cls.of_schema(_schema(response_format), "response_format.json_schema.schema")
        if kind == "regex":
            return cls("regex", _regex(response_format.get("regex")))
        if kind == "choice":
            return cls("choice", _choices(response_format.get("choices")))
        raise InvalidJob(
            f"response_format is of type {kind!r:.40}; allowed: an object whose type is text, json_object, "
            "json_schema, regex or choice"
        )

    @classmethod
    def of_schema(cls, schema: Any, where: str) -> Structure:
        """JSON that fulfils a schema; ``where`` names it in errors. Raises as :meth:`of` does."""
        if not isinstance(schema, dict) and schema is not True:
            raise InvalidJob(f"{where} is a {type(schema).__name__}; allowed: a JSON schema, which is an object")
        if (depth := _depth(schema)) > MOST_DEPTH:
            raise InvalidJob(f"{where} is nested {depth} levels deep; allowed: up to {MOST_DEPTH}")
        source = json.dumps({} if schema is True else schema)
        if len(source) > MOST_SCHEMA:
            raise InvalidJob(f"{where} has {len(source)} characters; allowed: up to {MOST_SCHEMA}")
        return cls("json", source)


def _schema(response_format: dict[str, Any]) -> Any:
    named = response_format.get("json_schema")
    if not isinstance(named, dict) or "schema" not in named:
        raise InvalidJob('response_format.json_schema.schema is missing; give {"name": ..., "schema": {...}}')
    return named["schema"]


def _regex(regex: Any) -> str:
    if not isinstance(regex, str) or not 0 < len(regex) <= MOST_REGEX:
        raise InvalidJob(f"response_format.regex must be a text of 1 to {MOST_REGEX} characters")
    return regex


def _choices(choices: Any) -> str:
    fine = isinstance(choices, list) and 0 < len(choices) <= MOST_CHOICES
    if not fine or not all(isinstance(choice, str) and choice for choice in choices):
        raise InvalidJob(f"response_format.choices must be a list of 1 to {MOST_CHOICES} texts, none of them empty")
    source = json.dumps(choices)
    if len(source) > MOST_SCHEMA:
        raise InvalidJob(f"response_format.choices have {len(source)} characters; allowed: up to {MOST_SCHEMA}")
    return source


def _depth(value: Any) -> int:
    """Levels of arrays and objects, counted without recursion."""
    depth, level = 0, [value]
    while level:
        level = [
            each
            for one in level
            if isinstance(one, dict | list)
            for each in (one.values() if isinstance(one, dict) else one)
        ]
        depth += bool(level)
    return depth
