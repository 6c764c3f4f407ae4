"""Generated JSON schemas and regular expressions, whose answers are bounded: a model of random weights ends them."""

from __future__ import annotations

import random
from typing import Any

NAMES = ("name", "größe", "a b", 'q"x')
REGEXES = (
    r"\d{4}-\d{2}-\d{2}", r"[A-Z]{3}-\d{1,6}", r"(yes|no|maybe)", r"[a-z]{1,6}@[a-z]{2,8}\.(com|org)", r"\+?\d{7,12}",
    r"#[0-9a-f]{6}", r"(\d{1,3}\.){3}\d{1,3}", r"v\d{1,3}\.\d{1,3}\.\d{1,3}", r"[01]{8}", r"(ab|cd){2,5}e?",
)  # fmt: skip


def schema(draw: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema with bounds on every length and number."""
    if depth == 0 or draw.random() < 0.3:
        return _leaf(draw)
    match draw.randrange(4):
        case 0:
            return {"type": "array", "items": schema(draw, depth - 1), "minItems": draw.randint(0, 2), "maxItems": 3}
        case 1:
            return {"anyOf": [schema(draw, depth - 1) for _ in range(draw.randint(2, 3))]}
        case 2:
            within = {f"k{number}": schema(draw, depth - 1) for number in range(2)}
            shared = {"type": "object", "properties": within, "required": ["k0"], "additionalProperties": False}
            both = {"type": "array", "items": {"$ref": "#/$defs/shared"}, "minItems": 1, "maxItems": 2}
            return {"$defs": {"shared": shared}, **both} if depth == 3 else shared
        case _:
            names = [f"{draw.choice(NAMES)}{number}" for number in range(draw.randint(1, 4))]
            return {
                "type": "object",
                "properties": {name: schema(draw, depth - 1) for name in names},
                "required": [name for name in names if draw.random() < 0.7],
                "additionalProperties": False,
            }


def _leaf(draw: random.Random) -> dict[str, Any]:
    low = draw.randint(-1000, 1000)
    if draw.random() < 0.02:  # these two are refused
        unique = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 2}
        return draw.choice([unique, {"not": {"type": "string"}}])
    return draw.choice(
        [
            {"type": "string", "minLength": draw.randint(0, 3), "maxLength": draw.randint(3, 12)},
            {"type": "string", "pattern": f"^{draw.choice(REGEXES[:6])}$"},
            {"type": "string", "format": draw.choice(["date", "uuid", "ipv4"])},
            {"type": "integer", "minimum": low, "maximum": low + draw.randint(1, 5000)},
            {"type": "integer", "minimum": 0, "maximum": 900, "multipleOf": draw.choice([2, 5, 7])},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": draw.sample(["red", 'a"b', "ü", 1, 2.5, None, True, "blue"], 3)},
            {"const": draw.choice(["x", 7, "line\nfeed"])},
            {"type": ["boolean", "null"]},
        ]
    )


def regex(draw: random.Random) -> str:
    """A regular expression of one to three parts."""
    parts = [draw.choice(REGEXES) for _ in range(draw.randint(1, 3))]
    return draw.choice(["", " ", "; "]).join(parts) if draw.random() < 0.95 else "(?=a)" + parts[0]
