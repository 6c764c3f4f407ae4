"""Parameters that depend on the engine of the model: what is passed on to it, and what it does not take."""

from __future__ import annotations

import json
from typing import Any, Literal

from producer.contract.fleet.engine_abilities import CALLS, abilities, refusal
from producer.contract.fleet.fleet_schema import Model

from .api_error import Problem
from .parameters import Parameter, check, is_neutral
from .translation import RequestBody

_GUIDED = ("json", "regex", "choice")
"""Kinds of vLLM's structured output that have a form of ``response_format``."""


def engine_parameters(
    asked: RequestBody, table: tuple[Parameter, ...], name: str, model: Model
) -> tuple[dict[str, Any], dict[str, None]]:
    """The parameters that a request passes on to its model's engine, and the names of those that are ignored, in order.

    Args:
        name: of the model.

    Raises:
        Problem: for the first that the endpoint does not take.
        UnsupportedByEngine: for the first that the engine does not take.
    """
    able = abilities(model)
    passed: dict[str, Any] = {}
    others = dict(asked.model_extra or {})
    form = _response_format(asked, others)
    for parameter in table:
        if parameter.treatment != "by engine" or parameter.name in ("logprobs", "top_logprobs"):
            continue
        value = form if parameter.name == "response_format" else getattr(asked, parameter.name)
        if value is None:
            continue
        neutral = is_neutral(value, parameter)
        if able.takes(parameter.name) and (not neutral or _means_something(parameter.name, value, asked)):
            passed[parameter.name] = value
        elif not neutral:
            raise refusal(model, name, parameter.name)
    for other, value in list(others.items()):
        if able.takes(other):
            del others[other]
            if value is not None:
                passed[other] = value
    return passed, dict.fromkeys(check(table, others))


def alternatives(
    table: tuple[Parameter, ...], name: str, model: Model, asked: int | Literal[False] | None
) -> dict[str, int]:
    """The job's parameter ``logprobs``: the number of alternatives at each token.

    Raises:
        UnsupportedByEngine: the engine tells none.
    """
    if asked is None or asked is False:
        return {}
    if abilities(model).takes("logprobs"):
        return {"logprobs": asked}
    if any(is_neutral(asked, each) for each in table if each.name == "logprobs"):
        return {}
    raise refusal(model, name, "logprobs")


def _means_something(name: str, value: Any, asked: RequestBody) -> bool:
    """Whether a neutral value is passed on: a number may differ from the server's own default, and what is said of
    tools means something beside tools."""
    if name in CALLS:
        return bool(getattr(asked, "tools", None))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _response_format(asked: RequestBody, others: dict[str, Any]) -> dict[str, Any] | None:
    """The ``response_format``, also from vLLM's parameters, which are taken out of ``others``."""
    form: dict[str, Any] | None = getattr(asked, "response_format", None)
    structured = others.get("structured_outputs")
    found = (
        {f"structured_outputs.{kind}": (kind, value) for kind, value in structured.items() if value is not None}
        if isinstance(structured, dict)
        else {}
    )
    for kind in _GUIDED:
        if (value := others.pop(f"guided_{kind}", None)) is not None:
            found[f"guided_{kind}"] = (kind, value)
    if not found:
        return form
    (place, (kind, value)), *more = found.items()
    if more or form is not None or kind not in _GUIDED:
        message = f"{place} is not supported beside another form of output; allowed: one, of {', '.join(_GUIDED)}"
        raise Problem(400, message, param=place, code="invalid_value")
    others.pop("structured_outputs", None)
    if kind == "json":
        return {"type": "json_schema", "json_schema": {"name": "guided", "schema": _schema(value, place)}}
    return {"type": kind, "regex" if kind == "regex" else "choices": value}


def _schema(value: Any, place: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Problem(400, f"{place} is no JSON schema", param=place, code="invalid_value") from None
