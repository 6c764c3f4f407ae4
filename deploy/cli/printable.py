"""Escaping of untrusted text for a terminal: a message may hold control sequences that a terminal would execute."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, with every character that is not printable written as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
