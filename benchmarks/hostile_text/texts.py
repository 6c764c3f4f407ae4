"""Random and hostile inputs, drawn from a seed: text and JSON as any client may send it, readable or not.

A readable input has to come out of the queue as it was given; any other has to be refused before it is queued.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from producer.contract.message.json_text import DEEPEST, MOST_DIGITS
from producer.contract.message.message_body import TYPED


@dataclass(frozen=True, slots=True)
class HostileText:
    """One input of a job as a JSON literal. ``kind`` says what is special about it."""

    kind: str
    literal: bytes
    readable: bool

    @property
    def value(self) -> Any:
        """What Python makes of the literal, as a caller of ``Client`` may hand it over.

        Raises:
            ValueError, RecursionError: Python reads no such value, so that it can be sent over HTTP and in files only.
        """
        return json.loads(self.literal.decode())

    @property
    def is_text(self) -> bool:
        """Whether it is a string, which a chat takes; others are objects."""
        return self.literal.startswith(b'"')


_RANGES = (
    (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0x9F), (0xA0, 0x24F), (0x300, 0x36F), (0x590, 0x6FF), (0x900, 0x97F),
    (0x200B, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF), (0xFDD0, 0xFDEF), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFF0, 0xFFFF), (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF), (0x1FFFE, 0x1FFFF), (0xE0000, 0xE007F), (0x10FFF0, 0x10FFFF),
)  # fmt: skip
"""Code points by what they are known to break: controls, combining and invisible characters, directions, noncharacters,
and those outside of the first plane."""

_ALPHABETS = tuple("".join(map(chr, range(first, last + 1))) for first, last in _RANGES)

_SNIPPETS = (
    "\\ud800", "\\u0000", "\\", '"', "NaN", "Infinity", "1e999", '{"__type__": "datetime", "__value__": "x"}',
    "__type__",
    "${7*7}", "{{7*7}}", "'; DROP TABLE jobs; --", "<|im_start|>system", "</s>", "[INST]", "%00", "%s%n", "\r\n\r\n",
    "data: [DONE]\n\n", "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301", "\u202etxt.exe", "\ufeff", "\u2028", "null", "-0", "0x1F",
    "A" * 5000,
)  # fmt: skip


def text(rng: random.Random) -> str:
    """A random text of at least one character, which UTF-8 can encode."""
    parts = []
    for _ in range(rng.randint(1, 6)):
        if rng.random() < 0.3:
            parts.append(rng.choice(_SNIPPETS))
            continue
        for alphabet in rng.choices(_ALPHABETS, k=rng.randint(1, 3)):
            parts += rng.choices(alphabet, k=rng.randint(1, 15))
    return "".join(parts)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _utf8(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _nested(levels: int, innermost: bytes = b"1") -> bytes:
    return b'{"a":' + b"[" * levels + innermost + b"]" * levels + b"}"


def _number(literal: bytes, rng: random.Random) -> bytes:
    return rng.choice((b'{"n": %s}', b'{"a": [{"b": [1, %s]}]}')) % literal


def _with_half(rng: random.Random) -> str:
    half = chr(rng.randint(0xD800, 0xDFFF))
    before, after = text(rng), text(rng)
    return rng.choice((half, before + half, half + after, before + half + after, "\ude00\ud83d"))


def _typed(rng: random.Random) -> bytes:
    kind = rng.choice(("datetime", "decimal", "uuid", "base64", "bytes", "date", "time", "nosuch", 7))
    value: object = rng.choice(("2030-01-01T00:00:00", "1", "", None, [], {"hex": "0" * 32}))
    typed = dict(zip(TYPED, (kind, value), strict=True))
    return _json(rng.choice((typed, {"a": typed}, {"a": [[typed]]})))


READABLE: dict[str, Callable[[random.Random], bytes]] = {
    "text": lambda rng: _json(text(rng)),
    "text in UTF-8": lambda rng: _utf8(text(rng)),
    "text in an object": lambda rng: _utf8({text(rng): text(rng), "a": [text(rng), None, True]}),
    "escaped pair": lambda rng: b'"\\ud83d\\ude%02x"' % rng.randint(0, 79),
    "nested": lambda rng: _nested(rng.randint(1, DEEPEST - 10)),
    "numbers": lambda rng: _json({"n": [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(5)]}),
    "extreme numbers": lambda rng: _number(
        rng.choice((b"-0.0", b"1e308", b"-1.7976931348623157e308", b"5e-324", b"1e-999", b"-0")), rng
    ),
    "integer": lambda rng: _number(str(rng.getrandbits(rng.randint(1, 4000))).encode(), rng),
    "a key like a type": lambda rng: _json({TYPED[0]: text(rng), "a": 1}),
}
"""Literals that come out of the queue as they were given."""

UNREADABLE: dict[str, Callable[[random.Random], bytes]] = {
    "half a pair": lambda rng: _json(_with_half(rng)),
    "half a pair in a key": lambda rng: _json({_with_half(rng): 1}),
    "half a pair in an object": lambda rng: _json({"a": [{"b": _with_half(rng)}]}),
    "no number": lambda rng: _number(rng.choice((b"NaN", b"Infinity", b"-Infinity")), rng),
    "too large": lambda rng: _number(rng.choice((b"1e999", b"-1e309", b"1" + b"0" * 400 + b".0")), rng),
    "too long": lambda rng: _number(b"9" * rng.randint(MOST_DIGITS + 1, 6000), rng),
    "nested too deep": lambda rng: _nested(rng.choice((DEEPEST + 5, 260, 1000, 5000, 100_000))),
    "of another type": _typed,
    "not UTF-8": lambda rng: b'"' + rng.choice((b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80")) + b'"',
    "a control character": lambda rng: b'"a' + bytes([rng.randint(0, 31)]) + b'"',
    "not JSON": lambda rng: rng.choice((b'{"a": 1,}', b"{'a': 1}", b'{"a": 01}', b'"\\x41"', b'{"a": .5}', b'"open')),
}
"""Literals that no worker reads, or that it reads as something else."""


def hostile(rng: random.Random, count: int) -> Iterator[HostileText]:
    """That many inputs, every kind as likely as any other."""
    kinds = [(name, True) for name in READABLE] + [(name, False) for name in UNREADABLE]
    for _ in range(count):
        name, readable = rng.choice(kinds)
        yield HostileText(name, (READABLE if readable else UNREADABLE)[name](rng), readable)
