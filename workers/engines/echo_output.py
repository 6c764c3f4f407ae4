"""The output of an echo engine that imitates a model: the words of the input, streamed singly, or a small vector."""

from __future__ import annotations

import re
from typing import Any, Literal

from producer.contract.errors import InvalidJob
from producer.contract.message.job import Item

from .protocol import Outcome, OutputPiece, Request

Task = Literal["echo", "generate", "embeddings"]

_WORD = re.compile(r"\s*\S+")


class Speech:
    """The output of a request in the format of the imitated engine; each word counts as a token.

    With ``task = "generate"`` the output is the input text, or the content of its last message, cut to
    ``max_new_tokens`` words.
    """

    def __init__(self, request: Request, task: Task) -> None:
        self._request = request
        self._said = 0
        texts = [_text(item, index) for index, item in enumerate(request.inputs)]
        words = [_WORD.findall(text.rstrip()) for text in texts]  # spaces at the end take quadratic time to try
        self._usage = {"input_tokens": sum(map(len, words))}
        if task == "embeddings":
            self._words: list[list[str]] = []
            self._outputs: list[Any] = [
                [float(len(text)), float(len(of)), 1.0] for text, of in zip(texts, words, strict=True)
            ]
            return
        most = request.parameters.get("max_new_tokens", 2**31)
        if not isinstance(most, int) or most < 1:
            raise InvalidJob(f"parameters.max_new_tokens = {most!r}; allowed: a number of at least 1")
        self._words = [of[:most] for of in words]
        self._outputs = [
            {"text": "".join(said), "finish_reason": "length" if len(said) < len(of) else "stop"}
            for said, of in zip(self._words, words, strict=True)
        ]
        self._usage["output_tokens"] = sum(map(len, self._words))

    @property
    def over(self) -> bool:
        """Whether the output is complete: at once without streaming, else after the last word."""
        return not self._request.stream or self._said >= max(map(len, self._words), default=0)

    def say(self) -> list[OutputPiece]:
        """The next word of each output; nothing without streaming."""
        if not self._request.stream:
            return []
        at, self._said = self._said, self._said + 1
        return [
            OutputPiece(self._request.id, index, words[at], 1)
            for index, words in enumerate(self._words)
            if at < len(words)
        ]

    @property
    def used(self) -> dict[str, int]:
        """The usage until now."""
        return {**self._usage, "output_tokens": sum(min(self._said, len(words)) for words in self._words)}

    def outcome(self, batch_size: int, ran_s: float) -> Outcome:
        """The terminal outcome of the request."""
        return Outcome(self._request.id, outputs=self._outputs, usage=self._usage, ran_s=ran_s, batch_size=batch_size)


def _text(item: Item, index: int) -> str:
    if isinstance(item, str):
        return item
    messages = item.get("messages") if isinstance(item, dict) else None
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        content = messages[-1].get("content")
        if isinstance(content, str):
            return content
    raise InvalidJob(f'input {index} is not a text; allowed: a text, or {{"messages": [...]}} whose contents are texts')
