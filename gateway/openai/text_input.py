"""Inputs that the API lets be a text, several, or the tokens of either."""

from __future__ import annotations

from typing import Any

from producer.contract.message.job import Item

from .api_error import Problem

Texts = str | list[str] | list[int] | list[list[int]]
"""The inputs that the API allows."""


def texts(given: Any, param: str) -> list[Item]:
    """The texts of an input, or their tokens.

    Raises:
        Problem: naming one that is empty.
    """
    single = isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int))
    several: list[Item] = [given] if single else given
    if not several:
        raise Problem(400, f"{param} is empty; give at least one text", param=param, code="invalid_value")
    for index, text in enumerate(several):
        if not text:
            where = param if given is text else f"{param}.{index}"
            least = "token" if isinstance(text, list) else "character"
            raise Problem(400, f"{where} is empty; give at least one {least}", param=param, code="invalid_value")
    return several
