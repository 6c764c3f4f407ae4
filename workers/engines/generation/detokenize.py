"""From the tokens of one sequence to its text, as they come: incremental detokenisation, and stop strings.

A token may be half a character, and its text may depend on the token before. So the last tokens are decoded twice,
without and with the new ones, and the difference is the new text, as in Text Generation Inference and vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HALF = "\ufffd"
"""What decoders make of bytes that are no character, or not yet."""


class Detokenizer:
    """The text of one sequence. ``text`` ends before the first of ``stops`` that has come, and is then ``stopped``."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._ids: list[int] = []
        self._context = 0  # what is decoded again begins here,
        self._read = 0  # and is text already up to here,
        self._known = ""  # namely this text
        self._final = False

    def add(self, ids: Sequence[int]) -> None:
        """Take the next tokens. Half a character waits for its other half."""
        self._ids += ids
        window = self._decode(self._context)
        if not window.endswith(_HALF):
            self._extend(window)
            self._context, self._read = self._read, len(self._ids)
            self._known = self._decode(self._context)

    def finish(self) -> None:
        """No more tokens: halves stay what they are, and no stop string can come any more."""
        if not self.stopped:
            self._extend(self._decode(self._context))
        self._final = True

    @property
    def complete(self) -> bool:
        """Whether no text follows."""
        return self.stopped or self._final

    @property
    def settled(self) -> str:
        """The text that no later token can take back: without what may be the beginning of a stop string."""
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
            clean_up_tokenization_spaces=False,  # it takes back spaces that were told
        )
        return text

    def _extend(self, window: str) -> None:
        begin = max(0, len(self.text) - self._longest + 1)
        self.text += window[len(self._known) :]
        found = [at for stop in self._stops if (at := self.text.find(stop, begin)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True
