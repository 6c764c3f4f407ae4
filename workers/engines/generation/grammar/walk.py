"""One sequence's way through a grammar: which tokens it may have next, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLMatcher


class GrammarWalk:
    """Forbids, as a ``LogitsChange``, the tokens that a grammar does not allow. The device's thread walks it; ``error``
    and ``ended_at`` may be read elsewhere once the token that set them has been reported.

    Args:
        size: the number of the model's logits.
    """

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size
        self.error = ""
        """Why the grammar cannot go on: it has become too complex."""
        self.ended_at = 0
        """The number of tokens with which the grammar is complete; 0 while it is not."""

    def __call__(self, scores: torch.Tensor, made: Sequence[int]) -> None:  # noqa: ARG002  a LogitsChange
        """Set the scores (vocabulary,) of tokens that are not allowed to minus infinity."""
        if self.error or self.ended_at:
            return  # its sequence is about to leave the batch
        forbidden = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8)[: self._size] == 0
        if self._matcher.is_error() or forbidden.all():
            self.error = self._matcher.get_error().partition("\n")[0] or "it allows no token"
            return
        scores.masked_fill_(torch.from_numpy(forbidden).to(scores.device), -torch.inf)

    def take(self, token: int, count: int) -> None:
        """Go on by the chosen token, the answer's ``count``-th."""
        if self.error or self.ended_at:
            return
        if not self._matcher.consume_token(token):
            self.error = self._matcher.get_error().partition("\n")[0] or "the token is not allowed"
        elif self._matcher.is_stopped():
            self.ended_at = count
