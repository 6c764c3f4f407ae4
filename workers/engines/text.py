"""Validation of texts, and of token ids in their place, before they reach a tokenizer or a model."""

from __future__ import annotations

from typing import Any

from producer.contract.errors import InvalidJob


def require_text(value: object, index: int) -> str:
    """Return ``value`` if it is a text.

    Raises:
        InvalidJob: naming the input, when it is of another type or holds an unpaired surrogate, which JSON allows and
            tokenizers do not.
    """
    if not isinstance(value, str):
        raise InvalidJob(f"input {index} is of type {type(value).__name__}; allowed here: a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidJob(
            f"input {index} holds U+{ord(value[error.start]):04X} alone at position {error.start}, "
            "which is no character; allowed: text that can be encoded as UTF-8"
        ) from None
    return value


def require_token_ids(value: list[Any], index: int) -> list[int]:
    """Return ``value`` if it is a list of token ids.

    Raises:
        InvalidJob: naming the input, when it holds something else.
    """
    for token in value:
        if not isinstance(token, int) or isinstance(token, bool):
            raise InvalidJob(f"input {index} holds {token!r:.40}; allowed in a list of token ids: whole numbers")
    return value
