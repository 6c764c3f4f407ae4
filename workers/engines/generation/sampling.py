"""Sampling of the next token, with the parameters of each sequence.

The continuous batching of transformers samples either all rows of a batch or none, and supports a temperature for each
request only by sorting the vocabulary for every row. Here greedy rows are left to the arg-max, and each sampled row is
drawn with a generator of its own, so that the result of a seed does not depend on the rest of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from ..parameters import GenerationParameters


class TokenSampler:
    """Draws the tokens of a sequence."""

    def __init__(self, parameters: GenerationParameters, index: int) -> None:
        self._parameters = parameters
        self._generator = torch.Generator()
        if parameters.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed((parameters.seed + index) % 2**63)  # inputs of one job differ

    def draw(self, logits: torch.Tensor) -> int:
        """Draw a token id from the ``logits`` (vocabulary,) of the next position."""
        top_k = self._parameters.top_k or logits.numel()
        logits = logits.float().cpu()
        # Subtracting the maximum first keeps the quotient from overflowing at low temperatures.
        scores, ids = ((logits - logits.max()) / self._parameters.temperature).sort(descending=True)
        weights = scores[:top_k].softmax(-1)
        if self._parameters.top_p < 1:
            before = weights.cumsum(-1) - weights
            weights = weights[before < self._parameters.top_p]
        return int(ids[torch.multinomial(weights, 1, generator=self._generator)])


class RowSampling(ContinuousBatchingLogitsProcessor):
    """Raises the drawn token of each sampled row to infinity, so that the arg-max of the batch takes it.

    ``not_finite`` holds the ids of sequences whose largest logit was NaN or infinite; their tokens are meaningless.
    """

    def __init__(self) -> None:
        self.supported_kwargs = {"sampler": TokenSampler}
        self.ignored_kwargs = ()
        self.not_finite: set[str] = set()
        self._rows: list[tuple[str, TokenSampler | None]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Clear the tensor of arguments, which is not used."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Record the sequences of the next rows: without asynchronous batching, their scores follow at once."""
        states = [request.state for request in requests_with_new_token]
        self._rows = [(state.request_id, state.logit_processor_kwargs.get("sampler")) for state in states]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  base class
        """Return ``scores`` (rows, vocabulary) with the drawn tokens raised to infinity."""
        largest = scores.amax(-1).isfinite().tolist()
        for row, (request_id, sampler) in enumerate(self._rows):
            if not largest[row]:
                self.not_finite.add(request_id)
            elif sampler is not None:
                scores[row, sampler.draw(scores[row])] = float("inf")
        return scores
