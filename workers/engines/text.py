"""Validation of texts before they reach a tokenizer."""

from __future__ import annotations

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
