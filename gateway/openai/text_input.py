"""Inputs that the API lets be a text, several, or tokens."""

from __future__ import annotations

from typing import Any

from .api_error import Problem

Texts = str | list[str] | list[int] | list[list[int]]
"""The inputs that the API allows. Only texts are accepted: tokens are specific to one tokenizer."""


def texts(given: Any, param: str) -> list[str]:
    """The texts of an input.

    Raises:
        Problem: naming one that is empty or no text.
    """
    several = [given] if isinstance(given, str) else given
    if not several:
        raise Problem(400, f"{param} is empty; give at least one text", param=param, code="invalid_value")
    for index, text in enumerate(several):
        where = param if given is text else f"{param}.{index}"
        if not isinstance(text, str):
            raise Problem(
                400, f"{where} is an array of tokens; allowed: texts", param=param, code="tokens_not_supported"
            )
        if not text:
            raise Problem(400, f"{where} is empty; give at least one character", param=param, code="invalid_value")
    return several
