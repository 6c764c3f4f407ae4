"""Incremental detokenisation of a sequence, with stop strings.

A token may be part of a character, and its text may depend on the token before. So the last tokens are decoded twice,
without and with the new ones, and the difference is the new text, as in Text Generation Inference and vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HALF = "\ufffd"
"""The replacement character, which decoders put for incomplete and invalid UTF-8."""


class Detokenizer:
    """The text of a sequence. It ends before the first occurrence of a stop string, which sets ``stopped``."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._ids: list[int] = []
        self._context = 0  # index of the first token that is decoded again
        self._read = 0  # index of the first token whose text is not in ``text``
        self._known = ""  # the text of the tokens between the two
        self._final = False
        self._free = 0  # index of the first character that may begin a stop string

    def add(self, ids: Sequence[int], *, may_stop: bool = True) -> None:
        """Add the next tokens. The text of an incomplete character waits for the rest of it. Without ``may_stop``, the
        text of these tokens begins no stop string."""
        if not ids:
            return
        self._ids += ids
        window = self._decode(self._context)
        if not window.endswith(_HALF):
            if not may_stop:
                self._free = len(self.text) + len(window) - len(self._known)
            self._extend(window)
            self._context, self._read = self._read, len(self._ids)
            self._known = self._decode(self._context)

    def finish(self) -> None:
        """End the sequence: add incomplete characters, and settle text that might have begun a stop string."""
        if not self.stopped:
            self._extend(self._decode(self._context))
        self._final = True

    @property
    def complete(self) -> bool:
        """Whether the text has ended."""
        return self.stopped or self._final

    @property
    def settled(self) -> str:
        """The text that is final: all but an ending that may begin a stop string."""
        if self.complete:
            return self.text
        for held in range(min(len(self.text), self._longest - 1), 0, -1):
            tail = self.text[-held:]
            if any(stop.startswith(tail) for stop in self._stops):
                return self.text[:-held]
        return self.text

    def _decode(self, start: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[start:],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,  # it removes spaces that were already reported
        )
        return text

    def _extend(self, window: str) -> None:
        begin = max(self._free, len(self.text) - self._longest + 1)
        self.text += window[len(self._known) :]
        found = [at for stop in self._stops if (at := self.text.find(stop, begin)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True
