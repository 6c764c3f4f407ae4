"""JSON as every process reads it: strictly, so that nothing is accepted that another refuses or reads otherwise.

Python's own reader takes NaN, infinite numbers, halves of surrogate pairs and any encoding of Unicode, which are not
JSON (RFC 8259), and its writer writes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json, to_json

BOM = b"\xef\xbb\xbf"
"""A byte order mark, with which some programs begin a text; it is no part of it, and :func:`read` takes none."""

DEEPEST = 200
"""Most levels of arrays and objects in one another that the reader follows."""

MOST_DIGITS = 4300
"""Most decimal digits of an integer that Python writes and the reader takes."""

_MOST_BITS = int(MOST_DIGITS * math.log2(10))

LONGEST_PLACE = 120
"""Most characters of a place that are told."""


class NotJson(ValueError):
    """A text is not JSON. ``place`` is where, such as ``messages.0.content``, and ``lenient`` the value as Python reads
    it; empty and None when it cannot either."""

    def __init__(self, message: str, place: str = "", lenient: Any = None) -> None:
        super().__init__(message)
        self.place = place
        self.lenient = lenient


def read(text: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        NotJson: with the reason, and the place if it can be told.
    """
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _explained(text, str(error)) from None
    if _holds_infinite(found):  # such as 1e999, which the reader takes for infinite
        raise _explained(text, "a number is too large")
    return found


def _holds_infinite(value: object) -> bool:
    # Written by a compiled writer, since looking at each of a million values would take ten times as long.
    return b"Infinity" in to_json(value, inf_nan_mode="constants") and any(
        isinstance(found, float) and math.isinf(found) for _, found, _ in walk(value)
    )


def _explained(text: bytes, reason: str) -> NotJson:
    """What is wrong, by its place rather than by its position, where Python's more lenient reader can read the text."""
    try:
        lenient = json.loads(text.decode())
    except (ValueError, RecursionError):
        return NotJson(reason)
    place, fault = first_fault(lenient) or ("", reason)
    return NotJson(f"{place} {fault}".lstrip(), place, lenient)


def first_fault(value: object, deepest: int = DEEPEST) -> tuple[str, str] | None:
    """The first place in a value that JSON cannot carry, and why; None when it carries all of it.

    Args:
        deepest: most levels of arrays and objects in one another.
    """
    for place, found, depth in walk(value, deepest):
        if why := f"is nested deeper than {deepest} levels" if depth > deepest else _fault(found):
            return place if len(place) <= LONGEST_PLACE else f"{place[: LONGEST_PLACE - 3]}...", why
    return None


def walk(value: object, deepest: int = DEEPEST) -> Iterator[tuple[str, object, int]]:
    """Every value within a value, itself first, with its place and its depth, down to the first that is too deep.

    Keys of objects count as values.
    """
    left: list[tuple[str, object, int]] = [("", value, 0)]
    while left:
        place, found, depth = left.pop()
        yield place, found, depth
        if depth > deepest:
            return
        if isinstance(found, dict):
            for name in found:
                yield place, name, depth
        pairs = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
        below = [(f"{place}.{name}" if place else str(name), each, depth + 1) for name, each in pairs]
        left += reversed(below)


def _fault(found: object) -> str:
    if isinstance(found, str):
        return _fault_of_text(found)
    if isinstance(found, float) and not math.isfinite(found):
        name = "NaN" if math.isnan(found) else "too large for a number" if found > 0 else "too small for a number"
        return f"is {name}: allowed are finite numbers"
    if isinstance(found, int) and found.bit_length() > _MOST_BITS:
        return f"is an integer of more than {MOST_DIGITS} digits"
    return ""


def _fault_of_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"holds U+{ord(text[error.start]):04X} alone at position {error.start}, which is half of a character; "
            "allowed: text that can be encoded as UTF-8"
        )
    return ""
