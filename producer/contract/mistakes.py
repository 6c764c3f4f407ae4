"""What pydantic found wrong with a value, by the places in that value: without the names of a union's alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import ErrorDetails


class Mistake(NamedTuple):
    """A mistake at a place, such as ``messages.0.role``, and what is allowed there, in pydantic's words."""

    place: str
    details: ErrorDetails
    allowed: str


def by_place(found: Sequence[ErrorDetails], whole: object) -> list[Mistake]:
    """Each mistake in the value ``whole`` once.

    Of a union pydantic tells what is wrong with each alternative, at a place that names the alternative. What suits one
    best fails it furthest within; those that fail at the same place are told together.
    """
    alike: dict[str, list[ErrorDetails]] = {}
    for details in found:
        alike.setdefault(_place(details, whole), []).append(details)
    return [
        Mistake(place, several[0], _together([each["msg"] for each in several]))
        for place, several in alike.items()
        if not any(other.startswith(f"{place}." if place else "") for other in alike if other != place)
    ]


def _place(details: ErrorDetails, whole: object) -> str:
    """A place without the parts that lead nowhere in the value, which are names of alternatives."""
    parts, value, loc = [], whole, details["loc"]
    for position, part in enumerate(loc, 1):
        within = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if part in within:
            value = within[part]
        elif position < len(loc) or details["type"] != "missing":  # what is missing leads nowhere, and is a place
            continue
        parts.append(str(part))
    return ".".join(parts)


_SHOULD_BE = "Input should be "


def _together(messages: Sequence[str]) -> str:
    several = list(dict.fromkeys(messages))
    if all(each.startswith(_SHOULD_BE) for each in several):
        return _SHOULD_BE + ", or ".join(each.removeprefix(_SHOULD_BE) for each in several)
    return "; or ".join(several)
