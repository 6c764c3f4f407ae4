"""How the next token of a sequence is chosen.

Continuous batching decides on sampling once for a whole batch, and offers a request its own
temperature only by sorting the vocabulary for every row, greedy ones too. Here each row is chosen by
its own parameters: greedy rows stay as they are for the arg-max, sampled ones are drawn from a
generator of their own, so that a seed means the same whoever the neighbours are.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from ..parameters import GenerationParameters


class Sampler:
    """Draws the tokens of one sequence."""

    def __init__(self, parameters: GenerationParameters, index: int) -> None:
        self._parameters = parameters
        self._generator = torch.Generator()
        if parameters.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed((parameters.seed + index) % 2**63)  # inputs of one job differ

    def draw(self, logits: torch.Tensor) -> int:
        """A token id, given the ``logits`` (vocabulary,) of the next position."""
        top_k = self._parameters.top_k or logits.numel()
        logits = logits.float().cpu()
        # The largest is 0 then, so that no quotient overflows, however low the temperature is.
        scores, ids = ((logits - logits.max()) / self._parameters.temperature).sort(descending=True)
        weights = scores[:top_k].softmax(-1)
        if self._parameters.top_p < 1:
            before = weights.cumsum(-1) - weights
            weights = weights[before < self._parameters.top_p]
        return int(ids[torch.multinomial(weights, 1, generator=self._generator)])


class RowSampling(ContinuousBatchingLogitsProcessor):
    """Puts each sampled row's draw above everything else in it, for the batch's arg-max to take.

    ``not_finite`` are the ids of those requests of which a row had no largest logit, but NaN or infinity. The tokens
    that the arg-max takes for them mean nothing.
    """

    def __init__(self) -> None:
        self.supported_kwargs = {"sampler": Sampler}
        self.ignored_kwargs = ()
        self.not_finite: set[str] = set()
        self._rows: list[tuple[str, Sampler | None]] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """The tensor that rows may pass numbers in is not used."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note whose rows come next: without asynchronous batching, the scores follow at once."""
        states = [request.state for request in requests_with_new_token]
        self._rows = [(state.request_id, state.logit_processor_kwargs.get("sampler")) for state in states]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  base class
        """Scores (rows, vocabulary) with the draws raised to infinity."""
        largest = scores.amax(-1).isfinite().tolist()
        for row, (request_id, sampler) in enumerate(self._rows):
            if not largest[row]:
                self.not_finite.add(request_id)
            elif sampler is not None:
                scores[row, sampler.draw(scores[row])] = float("inf")
        return scores
