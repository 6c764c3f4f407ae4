"""Encoding of inputs to prompts, which refuses inputs that would fail the whole batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from producer.contract.errors import ContextLengthExceeded, InvalidJob
from producer.contract.message.job import Item

from ..parameters import GenerationParameters
from ..text import require_text, require_token_ids
from .chat import ChatOptions, ChatTemplate
from .vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Prompts:
    """Encodes prompts. ``max_tokens`` is the model's longest sequence."""

    tokenizer: Any
    vocabulary: Vocabulary
    max_tokens: int

    @property
    def chat(self) -> ChatTemplate:
        """The model's chat template."""
        return ChatTemplate(self.tokenizer)

    def encode(self, item: Item, index: int, options: ChatOptions | None = None) -> list[int]:
        """The token ids of input ``index``: a text to complete, its token ids, or the ``{"messages": [...]}`` of a
        chat.

        Raises:
            InvalidJob: naming the input, the fault, and what is allowed.
        """
        if isinstance(item, dict):
            text = self.chat.render(item, index, options or ChatOptions())
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        elif isinstance(item, list):
            ids = require_token_ids(item, index)
        else:
            ids = self.tokenizer(require_text(item, index))["input_ids"]
        if not ids:
            raise InvalidJob(f"input {index} is empty; give at least one token of text")
        self.check_ids(ids, f"input {index}")
        return ids

    def text_of(self, item: Item, ids: list[int], index: int) -> str:
        """The text of a prompt that is to be repeated.

        Raises:
            InvalidJob: when it is a chat.
        """
        if isinstance(item, dict):
            raise InvalidJob(f"input {index} is a chat, which echo cannot repeat; allowed: a text, or its token ids")
        return item if isinstance(item, str) else self.vocabulary.text_of(*ids)

    def check_ids(self, ids: Iterable[int], where: str) -> None:
        """Check that the model knows all token ids: one outside of the embedding kills the batch, with all waiting
        sequences.

        Raises:
            InvalidJob: naming ``where`` and the id.
        """
        if outside := [token for token in ids if not 0 <= token < self.vocabulary.size]:
            raise InvalidJob(f"{where} holds token id {outside[0]}; this model knows 0 to {self.vocabulary.size - 1}")

    def answer_tokens(self, prompt_tokens: int, index: int, parameters: GenerationParameters) -> int:
        """The longest answer to input ``index``, in tokens.

        Raises:
            ContextLengthExceeded: when there is no room for one token, or for all that are asked for explicitly.
        """
        room = self.max_tokens - prompt_tokens
        asked = 1 if parameters.fits else parameters.max_new_tokens
        if asked <= room:
            return min(parameters.max_new_tokens, room)
        asks = "" if parameters.fits else f" and asks for max_new_tokens = {asked}"
        cure = f"ask for at most {room}" if room > 0 else f"give at most {self.max_tokens - 1}"
        raise ContextLengthExceeded(
            f"This model's maximum context length is {self.max_tokens} tokens, input and answer together. However, "
            f"input {index} has {prompt_tokens} tokens{asks}: {cure}"
        )
