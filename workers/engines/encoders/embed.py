"""Text embedding: one vector for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from producer.contract.errors import InvalidJob, ModelNotFound

from ..protocol import Request
from ..sources import read_json
from ..text import require_text
from .backlog import Text
from .pooling import Pooling
from .pretrained import WARM_UP, PretrainedEncoder
from .sentence_embedding import SentenceEmbedding


class Embedder(PretrainedEncoder):
    """Returns one vector (``list[float]``) for each input text, equal to that of sentence-transformers."""

    kind = AutoModel

    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""
        if request.parameters:
            raise InvalidJob(f"parameters = {request.parameters!r}: an embedding takes none")
        if not request.inputs:
            raise InvalidJob("input = []: give at least one text")
        return [self._sentence.prompt + require_text(item, index) for index, item in enumerate(request.inputs)]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:  # noqa: ARG002  values are the outputs
        """See ``micro_batches``."""
        return values

    def _needs(self, weight: str) -> bool:
        return "pooler" not in weight  # it follows the hidden state that is pooled here

    def _inspect(self, model_dir: Path) -> int | None:
        if read_json(model_dir / "config.json").get("is_encoder_decoder"):
            raise ModelNotFound(
                f"{model_dir}/config.json: is_encoder_decoder = true; allowed: an encoder, or a decoder"
            )
        self._sentence = SentenceEmbedding.read(model_dir)
        return self._sentence.max_length

    def _adopt(self) -> None:
        if self._sentence.lower_case:
            self._read_lower_case()
        skipped = self._prompt_tokens() if self._sentence.skips_prompt else 0
        self._pooling = Pooling(self._sentence.modes, skipped)
        self._layers = torch.nn.Sequential(*self._sentence.layers).to(self._device).eval()

    def warm_up_text(self) -> Text:
        """See ``micro_batches``. A pooling that skips the prompt would keep nothing of a text without it."""
        return self._sentence.prompt + WARM_UP

    def _prompt_tokens(self) -> int:
        """The number of tokens of the prompt alone, without a final special token."""
        ids: list[int] = self._tokenizer(self._sentence.prompt)["input_ids"] if self._sentence.prompt else []
        return len(ids) - bool(ids and ids[-1] in self._tokenizer.all_special_ids)

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self._layers(self._pooling.apply(output.last_hidden_state, mask))
        return vectors[:, : self._sentence.truncate_dim]
