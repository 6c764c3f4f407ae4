"""A model's tokens as texts and as bytes."""

from __future__ import annotations

from typing import Any

import llguidance.hf


class Vocabulary:
    """The tokens of a tokenizer. ``grammars`` is the tokenizer of llguidance, by which grammars constrain tokens; None
    for tokenizers that it does not support, such as WordPiece.

    Args:
        size: the number of tokens that the model has logits for, at least those of the tokenizer.
    """

    def __init__(self, tokenizer: Any, size: int, eos: list[int]) -> None:
        self._tokenizer = tokenizer
        self.size = size
        self.grammars: Any = None
        self.why_no_grammars = ""
        try:
            known = len(tokenizer)
            self.grammars = llguidance.hf.from_tokenizer(
                tokenizer, n_vocab=max(size, known), eos_token=[token for token in eos if token < known] or None
            )
        except Exception as error:  # it has no error of its own, and its Rust code raises several
            self.why_no_grammars = str(error)

    def text_of(self, *tokens: int) -> str:
        """The text of tokens, special ones too; for a part of a character, the replacement character."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token, in UTF-8; part of a character if the token is."""
        if self.grammars is not None and token < self.grammars.vocab_size:
            found: bytes = self.grammars.decode_bytes([token])
            return found
        return self.text_of(token).encode()
