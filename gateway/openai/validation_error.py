"""Validation errors: pydantic's findings about a request body in the API's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from producer.contract.message.job import shown
from producer.contract.mistakes import by_place

from .api_error import Problem

_PLACES = ("body", "query", "path", "header", "cookie")


def mistake(found: Sequence[Any], body: object) -> Problem:
    """The first mistake that pydantic found in a request, with its parameter. A body that is no JSON has none.

    Args:
        body: of the request.
    """
    first = found[0]
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json")
    if tuple(first["loc"]) in ((), ("body",)) and first["type"] != "missing":
        message = "the body is no JSON object: send one, with 'Content-Type: application/json'"
        return Problem(400, message, code="invalid_json")
    if first["loc"][0] in _PLACES:
        source = first["loc"][0]
        found = [{**each, "loc": each["loc"][1:]} for each in found if each["loc"][0] == source]
        whole = body if source == "body" else {each["loc"][0]: each["input"] for each in found}
    else:
        whole = body
    place, first, allowed = by_place(found, whole)[0]
    param = place or None
    if first["type"] == "missing":
        message = f"{param or 'the body'} is missing"
        return Problem(400, message, param=param, code="missing_required_parameter")
    message = f"{param or 'the body'} = {shown(param or '', first['input'])}: {allowed}"
    return Problem(400, message, param=param, code="invalid_value")
