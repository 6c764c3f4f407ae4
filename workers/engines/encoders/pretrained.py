"""Tokenizer and encoder from a model's files: what embed, classify and rerank have in common of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from producer.contract.errors import ConfigError, ModelNotFound
from producer.contract.fleet_schema import Model
from producer.contract.job import explain

from .. import sources
from ..checkpoint import load_model, load_tokenizer
from ..protocol import Request
from ..torch_device import torch_device
from .backlog import Features, Text
from .micro_batches import OutOfMemory

_NO_LIMIT = 10**20
"""Tokenizers without a limit answer 10**30."""
_MAX_LENGTH_UNKNOWN = 512


class EncoderOptions(BaseModel):
    """What ``options`` of an encoder model may hold.

    ``max_batch_tokens`` counts padding. ``max_length`` is how many tokens of an input are read, at most and by default
    as many as the model can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_tokens: Annotated[int, Field(ge=1)] = 4096
    max_length: Annotated[int, Field(ge=8)] | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "float32"

    @classmethod
    def of(cls, settings: Model) -> EncoderOptions:
        """Check the options of a model.

        Raises:
            ConfigError: with a line for each mistake: key, value, what is allowed.
        """
        try:
            return cls.model_validate(settings.options)
        except ValidationError as error:
            article = "an" if settings.engine[0] in "aeiou" else "a"
            raise ConfigError(f"options of {article} {settings.engine} model:\n{explain(error)}") from None


class PretrainedEncoder(ABC):
    """See ``micro_batches.Encoder``. What a kind of model says, and what it is asked, is its subclass's."""

    kind: ClassVar[Any]
    """The class of transformers that loads it."""

    def __init__(self, settings: Model, device: str) -> None:
        self._options = EncoderOptions.of(settings)
        self._settings = settings
        self._device = torch_device(device)
        self._tokenizer: Any = None
        self._model: Any = None
        self._max_length = 0
        self.max_batch_tokens = self._options.max_batch_tokens

    def load(self) -> None:
        """Load tokenizer and model.

        Raises:
            ModelNotFound: when the source does not lead to a model of this kind.
        """
        model_dir = sources.resolve(self._settings.source)
        named = f"source = {self._settings.source!r}: {model_dir}"
        model = load_model(self.kind, model_dir, self._settings, self._needs, dtype=self._options.dtype)
        self._tokenizer = load_tokenizer(model_dir, self._settings)
        if self._tokenizer.pad_token is None:
            raise ModelNotFound(f"{named} has a tokenizer without a token for padding, so it cannot be batched")
        self._model = model.to(self._device).eval()
        self._max_length = self._known_length()
        self._adopt(model_dir)
        self._max_length = min(self._max_length, self._options.max_length or self._max_length)

    def encode(self, texts: list[Text]) -> list[Features]:
        """See ``micro_batches``. Of a pair that is too long, the longer one is cut, as sentence-transformers does."""
        singles = [text for text in texts if isinstance(text, str)]
        pairs = [text for text in texts if not isinstance(text, str)]
        if singles and pairs:
            return [self.encode([text])[0] for text in texts]
        read = (singles,) if singles else ([first for first, _ in pairs], [second for _, second in pairs])
        encoded = self._tokenizer(
            *read, truncation="longest_first", max_length=self._max_length, return_attention_mask=False
        )
        return [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]

    @torch.inference_mode()
    def forward(self, rows: list[Features]) -> list[Any]:
        """See ``micro_batches``."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        features = self._tokenizer.pad(columns, return_tensors="pt").to(self._device)
        try:
            values: list[Any] = self._values(self._model(**features), features["attention_mask"]).float().tolist()
        except torch.OutOfMemoryError as error:
            reason = str(error)
        else:
            return values
        # Here, where nothing holds the tensors of the failed pass any more.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(reason)

    def close(self) -> None:
        """See ``micro_batches``."""
        self._model = self._tokenizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _known_length(self) -> int:
        """Tokens that it can read, as far as tokenizer, configuration and weights say."""
        positions: int = getattr(self._model.config, "max_position_embeddings", None) or _NO_LIMIT
        for name, module in self._model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                positions -= module.padding_idx + 1  # RoBERTa and its kin count positions from there
        limit: int = self._tokenizer.model_max_length
        return min(limit, positions) if limit < _NO_LIMIT else min(positions, _MAX_LENGTH_UNKNOWN)

    def _needs(self, weight: str) -> bool:  # noqa: ARG002  subclasses look at it
        """Whether it computes with a weight that is not in its files."""
        return True

    def _adopt(self, model_dir: Path) -> None:  # noqa: B027  most have nothing to add
        """Read what else its files say, now that it is loaded.

        Raises:
            ModelNotFound: when it is not of a kind that is served.
        """

    @abstractmethod
    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""

    @abstractmethod
    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """What counts of the model's output, row by row; ``mask`` (rows, tokens) is 0 where padding is."""

    @abstractmethod
    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
