"""Inputs that the API lets be a text, several, or tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from producer.contract.fleet.engine_abilities import abilities
from producer.contract.fleet.fleet_schema import Model

from .api_error import Problem

Tokens = list[Annotated[int, Field(ge=0, lt=2**31)]]
Texts = str | list[str] | Tokens | list[Tokens]
"""The inputs that the API allows. Tokens are those of the model's own tokenizer."""


def texts(given: Any, param: str, model: Model) -> list[Any]:
    """The texts of an input, or lists of token ids.

    Raises:
        Problem: naming one that is empty, or that the model's engine does not take.
    """
    one = isinstance(given, str) or (given and isinstance(given[0], int))
    several = [given] if one else given
    if not several:
        raise Problem(400, f"{param} is empty; give at least one text", param=param, code="invalid_value")
    takes_tokens = "token_ids" in abilities(model).inputs
    for index, text in enumerate(several):
        where = param if one else f"{param}.{index}"
        if not isinstance(text, str) and not takes_tokens:
            raise Problem(
                400, f"{where} is an array of tokens; allowed: texts", param=param, code="tokens_not_supported"
            )
        if not text:
            raise Problem(400, f"{where} is empty; give at least one character", param=param, code="invalid_value")
    return several
