"""Validation errors: pydantic's findings about a request body in the API's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from producer.contract.job import shown

from .api_error import Problem

_PLACES = ("body", "query", "path", "header", "cookie")


def mistake(found: Sequence[Any]) -> Problem:
    """The first mistake that pydantic found, with its parameter. A body that is no JSON has none."""
    first = found[0]
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json")
    if tuple(first["loc"]) in ((), ("body",)) and first["type"] != "missing":
        message = "the body is no JSON object: send one, with 'Content-Type: application/json'"
        return Problem(400, message, code="invalid_json")
    where = [str(part) for part in first["loc"] if part not in _PLACES]
    param = ".".join(where) or None
    if first["type"] == "missing":
        message = f"{param or 'the body'} is missing"
        return Problem(400, message, param=param, code="missing_required_parameter")
    message = f"{param or 'the body'} = {shown(param or '', first['input'])}: {first['msg']}"
    return Problem(400, message, param=param, code="invalid_value")
