"""Embeddings: one vector for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from producer.contract.errors import InvalidJob

from ..protocol import Request
from ..text import require_text
from .backlog import Text
from .pooling import Pooling
from .pretrained import PretrainedEncoder


class Embedder(PretrainedEncoder):
    """One vector (``list[float]``) per input text, pooled as the model's own files say."""

    kind = AutoModel

    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""
        if request.parameters:
            raise InvalidJob(f"parameters = {request.parameters!r}: an embedding takes none")
        if not request.inputs:
            raise InvalidJob("input = []: give at least one text")
        return [require_text(item, index) for index, item in enumerate(request.inputs)]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:  # noqa: ARG002  one value is one output
        """See ``micro_batches``."""
        return values

    def _needs(self, weight: str) -> bool:
        return "pooler" not in weight  # a layer behind those whose output is pooled here

    def _adopt(self, model_dir: Path) -> None:
        self._pooling = Pooling.read(model_dir)
        self._max_length = self._pooling.max_length or self._max_length

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        return self._pooling.apply(output.last_hidden_state, mask)
