"""The choice of tokens for the rows of the running batch, each by the parameters of its sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from ..grammar.walk import GrammarWalk
from .logits import LogitsChange
from .logprobs import Recorder, measure
from .sampling import TokenSampler


@dataclass(slots=True)
class TokenChoice:
    """How the tokens of a sequence are chosen: by changed logits, and by drawing rather than the arg-max."""

    changes: list[LogitsChange] = field(default_factory=list)
    sampler: TokenSampler | None = None
    recorder: Recorder | None = None
    """Records log probabilities, if they are asked for."""
    grammar: GrammarWalk | None = None
    """What its text must follow, if that is asked for; the last of the changes."""

    @property
    def is_plain(self) -> bool:
        """Whether it is the arg-max of the model's logits, so that the row needs nothing of its own."""
        return not self.changes and self.sampler is None and self.recorder is None and self.grammar is None


class RowChoice(ContinuousBatchingLogitsProcessor):
    """Changes the logits of each row that asks for it, and raises the drawn token of each sampled row to infinity, so
    that the arg-max of the batch takes it.

    ``not_finite`` holds the ids of sequences whose largest logit was NaN or infinite; their tokens are meaningless.
    """

    def __init__(self) -> None:
        self.supported_kwargs = {"choice": TokenChoice}
        self.ignored_kwargs = ()
        self.not_finite: set[str] = set()
        self._rows: list[tuple[str, TokenChoice | None, Sequence[int]]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Clear the tensor of arguments, which is not used."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Record the sequences of the next rows: without asynchronous batching, their scores follow at once."""
        states = [request.state for request in requests_with_new_token]
        self._rows = [(state.request_id, state.logit_processor_kwargs.get("choice"), _made(state)) for state in states]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  base class
        """Return ``scores`` (rows, vocabulary), changed, with the drawn tokens raised to infinity."""
        largest = scores.amax(-1).isfinite().tolist()
        recorders = {row: recorder for row in range(len(largest)) if largest[row] and (recorder := self._recorder(row))}
        raw = scores[list(recorders)] if recorders else scores
        for row, (request_id, choice, made) in enumerate(self._rows):
            if not largest[row]:
                self.not_finite.add(request_id)
            elif choice is not None:
                for change in choice.changes:
                    change(scores[row], made)
                if choice.grammar is not None:
                    choice.grammar(scores[row], made)
                if choice.sampler is not None:
                    scores[row, choice.sampler.draw(scores[row])] = torch.inf
        if recorders:
            _record(list(recorders.values()), raw, scores[list(recorders)].argmax(-1).tolist())
        self._walk(scores, largest)
        return scores

    def _walk(self, scores: torch.Tensor, finite: list[bool]) -> None:
        """Let the grammars know of the tokens."""
        walks = {
            row: (choice.grammar, len(made))
            for row, (_, choice, made) in enumerate(self._rows)
            if choice is not None and choice.grammar is not None and finite[row]
        }
        if walks:
            tokens = scores[list(walks)].argmax(-1).tolist()
            for (grammar, made), token in zip(walks.values(), tokens, strict=True):
                grammar.take(token, made + 1)

    def _recorder(self, row: int) -> Recorder | None:
        choice = self._rows[row][1] if row < len(self._rows) else None
        recorder = None if choice is None else choice.recorder
        return None if recorder is None or recorder.alternatives is None else recorder


def _record(recorders: list[Recorder], logits: torch.Tensor, tokens: list[int]) -> None:
    most = max(recorder.alternatives or 0 for recorder in recorders)
    for recorder, measured in zip(recorders, measure(logits, tokens, most), strict=True):
        recorder.answer_tokens.append(measured.first(recorder.alternatives or 0))


def _made(state: Any) -> Sequence[int]:
    """The tokens of an answer so far; the batcher moves them to the prompt when it takes a sequence's cache away."""
    made: Sequence[int] = state.generated_tokens
    return [*state.initial_tokens[state._true_initial_tokens :], *made] if state._true_initial_tokens else made
