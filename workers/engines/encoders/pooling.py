"""Pooling of token vectors into one vector, in the modes of sentence-transformers
(``sentence_transformers/sentence_transformer/modules/pooling.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@dataclass(frozen=True, slots=True)
class Pooling:
    """Concatenates the vectors of all ``modes``, leaving out the first ``prompt_tokens`` tokens of each row."""

    modes: tuple[PoolingMode, ...] = ("mean",)
    prompt_tokens: int = 0

    def apply(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool ``hidden`` (rows, tokens, width), where ``mask`` (rows, tokens) is 1, to (rows, modes * width).

        Rows are padded on the right. Sums and the result are float32.
        """
        hidden = hidden.float()
        kept = mask.clone()
        kept[:, : self.prompt_tokens] = 0
        return torch.cat([self._pooled(mode, hidden, kept) for mode in self.modes], dim=-1)

    def _pooled(self, mode: PoolingMode, hidden: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        weights = kept.unsqueeze(-1).to(hidden.dtype)
        match mode:
            case "cls":
                return hidden[torch.arange(len(hidden)), kept.argmax(1)]
            case "lasttoken":
                last = kept.shape[1] - 1 - kept.flip(1).argmax(1)
                return hidden[torch.arange(len(hidden)), last]
            case "max":
                return hidden.masked_fill(weights == 0, float("-inf")).amax(1)
            case "mean":
                return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            case "mean_sqrt_len_tokens":
                return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9).sqrt()
            case "weightedmean":
                weights = weights * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).unsqueeze(-1)
                return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
