"""Changes to the logits of one row of the running batch, before its next token is chosen.

Each is a callable that changes the ``scores`` (vocabulary,) of a row in place, given the tokens ``made`` so far. They
are applied in vLLM's order: bias, penalties, then what is not allowed at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .generate_parameters import GenerateParameters

LogitsChange = Callable[[torch.Tensor, Sequence[int]], None]


class Bias:
    """Adds ``logit_bias``."""

    def __init__(self, bias: dict[int, float]) -> None:
        self._ids, self._values = torch.tensor(list(bias)), torch.tensor(list(bias.values()), dtype=torch.float32)

    def __call__(self, scores: torch.Tensor, made: Sequence[int]) -> None:  # noqa: ARG002  a LogitsChange
        """See the module."""
        self._ids, self._values = self._ids.to(scores.device), self._values.to(scores.device)
        scores[self._ids] += self._values


class RepetitionPenalty:
    """Makes the tokens of the prompt and the answer less likely, as in CTRL (Keskar et al., 2019)."""

    def __init__(self, penalty: float, prompt: Sequence[int]) -> None:
        self._penalty = penalty
        self._prompt = prompt
        self._seen = torch.empty(0, dtype=torch.bool)
        self._read = 0

    def __call__(self, scores: torch.Tensor, made: Sequence[int]) -> None:
        """See the module."""
        if not len(self._seen):
            self._seen = torch.zeros_like(scores, dtype=torch.bool)
            self._seen[list(self._prompt)] = True
        self._seen[list(made[self._read :])] = True
        self._read = len(made)
        penalised = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        torch.where(self._seen, penalised, scores, out=scores)


class AnswerPenalty:
    """OpenAI's penalties: a token that the answer has c times loses c times ``frequency``, and ``presence``."""

    def __init__(self, frequency: float, presence: float) -> None:
        self._frequency, self._presence = frequency, presence
        self._lost = torch.empty(0)
        self._read = 0
        self._present: set[int] = set()

    def __call__(self, scores: torch.Tensor, made: Sequence[int]) -> None:
        """See the module."""
        if not len(self._lost):
            self._lost = torch.zeros_like(scores)
        for token in made[self._read :]:
            self._lost[token] += self._frequency + (0.0 if token in self._present else self._presence)
            self._present.add(token)
        self._read = len(made)
        scores -= self._lost


class LeastLength:
    """Forbids the tokens that ``end`` an answer before it has ``least`` tokens."""

    def __init__(self, least: int, ends: Sequence[int]) -> None:
        self._least = least
        self._ends = list(ends)

    def __call__(self, scores: torch.Tensor, made: Sequence[int]) -> None:
        """See the module."""
        if len(made) < self._least:
            scores[self._ends] = -torch.inf


def changes(parameters: GenerateParameters, prompt: Sequence[int], ends: Sequence[int]) -> list[LogitsChange]:
    """The changes that ``parameters`` ask for; none by default. ``ends`` are the tokens that end the answer."""
    asked: list[LogitsChange] = []
    if parameters.logit_bias:
        asked.append(Bias(parameters.logit_bias))
    if parameters.repetition_penalty != 1:
        asked.append(RepetitionPenalty(parameters.repetition_penalty, prompt))
    if parameters.frequency_penalty or parameters.presence_penalty:
        asked.append(AnswerPenalty(parameters.frequency_penalty, parameters.presence_penalty))
    if parameters.min_tokens and ends:
        asked.append(LeastLength(parameters.min_tokens, ends))
    return asked
