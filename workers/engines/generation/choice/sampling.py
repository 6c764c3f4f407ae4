"""Sampling of the next token, with the parameters of each sequence.

The continuous batching of transformers samples either all rows of a batch or none, and supports a temperature for each
request only by sorting the vocabulary for every row. Here greedy rows are left to the arg-max, and each sampled row is
drawn with a generator of its own, so that the result of a seed does not depend on the rest of the batch.
"""

from __future__ import annotations

import torch

from .generate_parameters import GenerateParameters


class TokenSampler:
    """Draws the tokens of a sequence."""

    def __init__(self, parameters: GenerateParameters, index: int) -> None:
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
        if self._parameters.min_p > 0:
            weights = weights[weights >= self._parameters.min_p * weights[0]]
        return int(ids[torch.multinomial(weights, 1, generator=self._generator)])
