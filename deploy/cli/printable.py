"""Text from a queue, made safe for a terminal: anybody may push, and a terminal obeys what it is sent."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, with whatever is not printable written as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
