"""Log probabilities of tokens: the model's own log-softmax, whatever changed the choice.

``Recorder`` holds those of one sequence. Those of prompts are measured while the prompts are read
(``prompt_logprobs`` beside the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..vocabulary import Vocabulary

IMPOSSIBLE = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI's and vLLM's value."""

_ROWS = 64
"""Rows whose log-softmax is in memory at a time."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log probability (None for the first of a prompt), and the likeliest tokens with theirs."""

    token: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()

    def first(self, alternatives: int) -> TokenLogprob:
        """The same with fewer of the likeliest tokens."""
        return TokenLogprob(self.token, self.logprob, self.likeliest[:alternatives])

    def told(self, vocabulary: Vocabulary) -> dict[str, Any]:
        """As OpenAI's API has it: ``token``, ``logprob``, ``bytes`` and ``top_logprobs``."""
        likeliest = [_entry(token, logprob, vocabulary) for token, logprob in self.likeliest]
        return {**_entry(self.token, self.logprob, vocabulary), "top_logprobs": likeliest}


@dataclass(slots=True)
class Recorder:
    """Records the log probabilities of a sequence as its tokens are chosen, and of its prompt as it is read.

    ``alternatives`` is the number of likeliest tokens for each token of the answer, ``prompt_alternatives`` for each of
    the prompt; None records nothing.
    """

    prompt: Sequence[int]
    alternatives: int | None = None
    prompt_alternatives: int | None = None
    answer_tokens: list[TokenLogprob] = field(default_factory=list)
    prompt_tokens: list[TokenLogprob] = field(default_factory=list)
    """All but the first, which nothing precedes."""

    @property
    def of_prompt(self) -> list[TokenLogprob]:
        """Those of a prompt that was read."""
        return [TokenLogprob(self.prompt[0], None), *self.prompt_tokens]


def measure(logits: torch.Tensor, tokens: Sequence[int], alternatives: int) -> list[TokenLogprob]:
    """The log probabilities of ``tokens``, one for each row of ``logits`` (rows, vocabulary)."""
    measured: list[TokenLogprob] = []
    for begin in range(0, len(tokens), _ROWS):
        some = tokens[begin : begin + _ROWS]
        logprobs = logits[begin : begin + _ROWS].float().log_softmax(-1)
        chosen = logprobs.gather(-1, torch.tensor(some, device=logits.device)[:, None])[:, 0].tolist()
        values, ids = logprobs.topk(min(alternatives, logprobs.shape[-1]))
        measured += [
            TokenLogprob(token, _finite(logprob), tuple(zip(top, map(_finite, best), strict=True)))
            for token, logprob, top, best in zip(some, chosen, ids.tolist(), values.tolist(), strict=True)
        ]
    return measured


def _finite(logprob: float) -> float:
    return max(logprob, IMPOSSIBLE)


def _entry(token: int, logprob: float | None, vocabulary: Vocabulary) -> dict[str, Any]:
    return {"token": vocabulary.text_of(token), "logprob": logprob, "bytes": list(vocabulary.bytes_of(token))}
