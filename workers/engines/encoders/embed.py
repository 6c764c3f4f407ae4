"""Text embedding: one vector for each text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import AutoModel

from producer.contract.errors import InvalidJob, ModelNotFound

from ..parameters import RequestParameters
from ..protocol import Request
from ..sources import read_json
from ..text import require_text, require_token_ids
from .backlog import Text
from .pooling import Pooling
from .pretrained import WARM_UP, PretrainedEncoder
from .sentence_embedding import SentenceEmbedding


class EmbedParameters(RequestParameters):
    """The ``parameters`` of ``embed``."""

    dimensions: Annotated[int, Field(ge=1)] | None = None
    """Vectors are cut to this length, and normalised anew; one that the model was trained for."""
    prompt_name: str | None = None
    """The prompt that precedes each text, by its name in the model's files."""


class Embedder(PretrainedEncoder):
    """Returns one vector (``list[float]``) for each input, a text or its token ids, equal to that of
    sentence-transformers."""

    kind = AutoModel

    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""
        asked = EmbedParameters.parse(request.parameters)
        if asked.dimensions is not None and asked.dimensions not in self._sentence.dimensions:
            known = ", ".join(map(str, self._sentence.dimensions)) or "none, as its files tell of no training for it"
            raise InvalidJob(f"parameters.dimensions = {asked.dimensions}; allowed for this model: {known}")
        prompt = self._prompt(asked.prompt_name)
        if not request.inputs:
            raise InvalidJob("input = []: give at least one text")
        return [
            require_token_ids(item, index) if isinstance(item, list) else prompt + require_text(item, index)
            for index, item in enumerate(request.inputs)
        ]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
        dimensions = EmbedParameters.parse(request.parameters).dimensions
        if dimensions is None:
            return values
        cut: list[Any] = torch.nn.functional.normalize(torch.tensor(values)[:, :dimensions]).tolist()
        return cut

    def _prompt(self, name: str | None) -> str:
        """The prompt of that name, by default the model's default.

        Raises:
            InvalidJob: naming the prompts that there are.
        """
        if name is None:
            return self._sentence.prompt
        if name not in self._sentence.prompts:
            known = ", ".join(self._sentence.prompts) or "none"
            raise InvalidJob(f"parameters.prompt_name = {name!r:.80}; allowed for this model: {known}")
        prompt = self._sentence.prompts[name]
        if self._sentence.skips_prompt and prompt != self._sentence.prompt:
            raise InvalidJob(
                f"parameters.prompt_name = {name!r}: this model leaves its default prompt out of pooling, and takes "
                "no other"
            )
        return prompt

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
