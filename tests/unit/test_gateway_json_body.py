"""Bodies with more values than the event loop decodes in a moment are refused before they are decoded."""

from __future__ import annotations

import json

import pytest

from gateway.http.json_body import MOST_NESTED, MOST_VALUES, _too_many


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MOST_NESTED + b"[]]",
        b'{"messages":[' + b'{"role":"user","content":"x"},' * MOST_NESTED + b"{}]}",
        b'{"prompt":[' + b"1," * MOST_VALUES + b"1]}",
        b'"' + b"[" * MOST_NESTED + b'",' + b"[" * (MOST_NESTED + 1),
    ],
)
def test_too_many_values_are_refused(body: bytes) -> None:
    assert "allowed" in _too_many(body)


def test_a_string_that_never_ends_is_looked_through_once() -> None:
    """In a moment; from each quote to the end of the body it would take hours."""
    endless = b"[" * (MOST_NESTED + 1) + b'"' + b'\\"' * 2_000_000
    assert "allowed" in _too_many(endless)


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "one, two [three] {four} " * 100_000},
        {"prompt": '"\\"[' * 20_000},
        {"input": [[7] * 100 for _ in range(4096)]},
        {"messages": [{"role": "user", "content": "hello, [you]"}] * 5000},
    ],
)
def test_long_texts_and_long_lists_are_taken(value: object) -> None:
    assert not _too_many(json.dumps(value).encode())
