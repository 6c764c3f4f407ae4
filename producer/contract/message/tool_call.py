"""Tool calls, as one text that can be told while it is made."""

from __future__ import annotations

from typing import Any


def call_of(ident: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call in OpenAI's form."""
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def call_text(call: dict[str, Any]) -> str:
    """A tool call of OpenAI's form as a text: its id, a space, its name, a line feed and its arguments."""
    return f"{call['id']} {call['function']['name']}\n{call['function']['arguments']}"


def call_head(text: str) -> tuple[str, str, str]:
    """The id, the name and the beginning of the arguments of a call, from a text that begins with the first two."""
    head, _, arguments = text.partition("\n")
    ident, _, name = head.partition(" ")
    return ident, name, arguments
