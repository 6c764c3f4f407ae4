"""The text of an answer from pieces that may split a character.

Servers split characters in two ways: JSON escapes of the halves of a surrogate pair in two events, and bytes of a UTF-8
sequence in two events, which are then no valid UTF-8 each. The bytes arrive here as Python's ``surrogateescape`` makes
them, U+DC80 to U+DCFF.
"""

from __future__ import annotations

import codecs
import re

_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Half of a surrogate pair that stands for no byte."""


def whole_characters(text: str) -> str:
    """The text with U+FFFD in place of everything that is no character, so that it can be encoded."""
    return TextAssembly().add(text, last=True)


class TextAssembly:
    """Assembles the pieces of one text. What is no character in the end becomes U+FFFD."""

    def __init__(self) -> None:
        self._half = ""
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, piece: str, *, last: bool = False) -> str:
        """The text that is complete with this piece. An incomplete character at its end is kept for the next piece."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff" and not last:
            piece, self._half = piece[:-1], piece[-1]
        if piece.isascii() and not self._bytes.getstate()[0]:
            return piece
        joined = piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return self._bytes.decode(_HALF.sub("\ufffd", joined).encode("utf-8", "surrogateescape"), last)
