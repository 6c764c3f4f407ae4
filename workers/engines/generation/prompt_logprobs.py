"""Log probabilities of the tokens of prompts, measured in the same forward pass that reads them.

The batcher computes logits only of the last token of each sequence. Where a sequence asks for those of its prompt,
hooks around the model's forward pass have it compute them, too, and take them away before the batcher sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList

from .choice.logprobs import Recorder, measure


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens of a prompt in the packed batch, from ``position`` on, that predict the prompt's tokens ``following``."""

    recorder: Recorder
    position: int
    following: Sequence[int]


class PromptReading(ContinuousBatchingLogitsProcessorList):
    """The batcher's list of processors, which hears of every step before its forward pass."""

    def follow(self, model: torch.nn.Module) -> None:
        """Measure the prompts that ``model`` reads from now on."""
        self.whole: set[str] = set()
        """The ids of sequences whose prompts are read whole, even where the cache has their beginnings."""
        self._pieces: list[_Piece] = []
        self._hooks = [
            model.register_forward_pre_hook(self._ask, with_kwargs=True),
            model.register_forward_hook(self._take, with_kwargs=True),
        ]

    def read_whole(self, cache: Any) -> None:
        """Keep ``cache`` from sharing the beginnings of prompts with the sequences in ``whole``."""
        search = cache.search_prefix_match
        cache.search_prefix_match = lambda request_id, ids: 0 if request_id in self.whole else search(request_id, ids)

    def end(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        """See the base class; notes the prompts that the next forward pass reads."""
        self._pieces, position = [], 0
        for request in requests_in_batch:
            choice = request.state.logit_processor_kwargs.get("choice")
            recorder = None if choice is None else choice.recorder
            if recorder is not None and recorder.prompt_alternatives is not None:
                begin = request.state.position_offset - request.query_length
                following = recorder.prompt[begin + 1 : begin + 1 + request.query_length]
                if following and begin == len(recorder.prompt_tokens):  # else it is read a second time
                    self._pieces.append(_Piece(recorder, position, following))
            position += request.query_length
        storage: torch.Tensor = super().prepare_tensor_args(requests_in_batch, arg_storage)
        return storage

    def _ask(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        kept = named.get("logits_to_keep")
        if not self._pieces or kept is None:
            return None  # without logits_to_keep the model computes the logits of all tokens
        return arguments, {**named, "logits_to_keep": torch.cat([self._positions(kept), kept])}

    def _take(self, _: Any, __: Any, named: dict[str, Any], output: Any) -> None:
        if not self._pieces:
            return
        kept = named.get("logits_to_keep")
        if kept is None:
            logits = output.logits[0, self._positions(named["input_ids"])]
        else:
            count = sum(len(piece.following) for piece in self._pieces)
            logits, output.logits = output.logits[0, :count], output.logits[:, count:]
        begin = 0
        for piece in self._pieces:
            rows = logits[begin : begin + len(piece.following)]
            alternatives = piece.recorder.prompt_alternatives or 0
            piece.recorder.prompt_tokens += measure(rows, piece.following, alternatives)
            begin += len(piece.following)
        self._pieces = []

    def _positions(self, like: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [
                torch.arange(
                    piece.position, piece.position + len(piece.following), device=like.device, dtype=like.dtype
                )
                for piece in self._pieces
            ]
        )
