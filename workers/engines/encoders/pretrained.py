"""The base of the encoders embed, classify and rerank: tokenisation, and the forward pass of a pretrained model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import normalizers

from producer.contract.errors import ModelNotFound
from producer.contract.fleet.engine_options import EncoderOptions
from producer.contract.fleet.fleet_schema import Model

from .. import sources
from ..checkpoint import load_model, load_tokenizer
from ..protocol import Request
from ..torch_device import torch_device
from .backlog import Features, Text, Unreadable
from .micro_batches import OutOfMemory

_NO_LIMIT = 10**20
"""A length that counts as unlimited. Tokenizers without a limit report 10**30."""


WARM_UP = "warm up"


class PretrainedEncoder(ABC):
    """A ``micro_batches.Encoder`` of a transformers model. Subclasses define the texts of requests and the outputs."""

    kind: ClassVar[Any]
    """The class of transformers that loads the model."""

    def __init__(self, settings: Model, device: str) -> None:
        assert isinstance(settings.options, EncoderOptions)
        self._options = settings.options
        self._settings = settings
        self._device = torch_device(device)
        self._tokenizer: Any = None
        self._model: Any = None
        self._max_length = 0
        self._known_ids: dict[str, int] = {}
        self.max_batch_tokens = self._options.max_batch_tokens

    def load(self) -> None:
        """Load tokenizer and model.

        Raises:
            ModelNotFound: when the source holds no model of this kind.
        """
        model_dir = sources.resolve(self._settings.source)
        stated = self._inspect(model_dir)
        model = load_model(self.kind, model_dir, self._settings, self._needs, dtype=self._options.dtype)
        self._tokenizer = load_tokenizer(model_dir, self._settings)
        if self._tokenizer.pad_token is None:
            raise ModelNotFound(f"{model_dir} has a tokenizer without a token for padding, so it cannot be batched")
        self._tokenizer.padding_side = "right"  # so that padding does not shift the positions
        self._model = model.to(self._device).eval()
        self._max_length = self._readable(model_dir, stated)
        self._known_ids = {"input_ids": self._model.get_input_embeddings().weight.shape[0]}
        if types := getattr(self._model.config, "type_vocab_size", None):
            self._known_ids["token_type_ids"] = types
        self._adopt()

    def warm_up_text(self) -> Text:
        """See ``micro_batches``."""
        return WARM_UP

    def encode(self, texts: list[Text]) -> list[Features | Unreadable]:
        """See ``micro_batches``. Pairs are truncated at their longer text, as in sentence-transformers. Token ids are
        taken as they are, with the special tokens that they have."""
        singles = [text for text in texts if isinstance(text, str)]
        pairs = [text for text in texts if isinstance(text, tuple)]
        if len(texts) > max(len(singles), len(pairs)):
            return [self._row(text) if isinstance(text, list) else self.encode([text])[0] for text in texts]
        read = (singles,) if singles else ([first for first, _ in pairs], [second for _, second in pairs])
        try:
            encoded = self._tokenizer(
                *read, truncation="longest_first", max_length=self._max_length, return_attention_mask=False
            )
        except Exception as error:  # tokenizers in Rust and in Python share no other base
            if len(texts) > 1:  # singly, so that only the text that causes it fails
                return [self.encode([text])[0] for text in texts]
            return [Unreadable(f"cannot be read by the model's tokenizer: {error}")]
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        return [self._checked(row) for row in rows]

    def _row(self, ids: list[int]) -> Features | Unreadable:
        names = [name for name in self._tokenizer.model_input_names if name != "attention_mask"]
        zeros = [0] * len(ids)
        return self._checked({name: (ids if name == "input_ids" else zeros)[: self._max_length] for name in names})

    def _checked(self, row: Features) -> Features | Unreadable:
        """The row, if all ids are in the model's embeddings: on a GPU, an id outside of them ends the process."""
        if not row["input_ids"]:
            return Unreadable("is empty; give at least one token of text")
        for name, known in self._known_ids.items():
            if name in row and not 0 <= min(row[name]) <= max(row[name]) < known:
                outside = next(each for each in row[name] if not 0 <= each < known)
                return Unreadable(f"holds {name} {outside}; this model knows 0 to {known - 1}")
        return row

    @torch.inference_mode()
    def forward(self, rows: list[Features]) -> list[Any]:
        """See ``micro_batches``."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        features = self._tokenizer.pad(columns, return_tensors="pt").to(self._device)
        try:
            raw = self._values(self._model(**features), features["attention_mask"]).float()
            finite: list[bool] = raw.isfinite().reshape(len(rows), -1).all(1).tolist()
            values: list[Any] = self._scores(raw).tolist()
        except torch.OutOfMemoryError as error:
            reason = str(error)
        else:
            return [value if is_finite else None for value, is_finite in zip(values, finite, strict=True)]
        # Outside of the except clause, whose traceback holds the tensors of the failed pass.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(reason)

    def close(self) -> None:
        """See ``micro_batches``."""
        self._model = self._tokenizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _read_lower_case(self) -> None:
        """Make the tokenizer lower-case all text except special tokens."""
        backend = self._tokenizer.backend_tokenizer
        others = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])

    def _readable(self, model_dir: Path, stated: int | None) -> int:
        """The tokens to which a row is truncated: ``stated``, else the tokenizer's limit; at most the model's positions
        and ``options.max_length``.

        Raises:
            ModelNotFound: when there is no limit at all.
        """
        limits = [stated or self._tokenizer.model_max_length, self._positions(), self._options.max_length or _NO_LIMIT]
        if (readable := min(limits)) >= _NO_LIMIT:
            raise ModelNotFound(
                f"{model_dir}: neither tokenizer nor configuration says how many tokens the model can read; "
                "say it in options.max_length"
            )
        return readable

    def _positions(self) -> int:
        """The number of positions that the model has for tokens."""
        positions: int = getattr(self._model.config, "max_position_embeddings", None) or _NO_LIMIT
        if positions < 0:  # XLNet's value for no limit
            positions = _NO_LIMIT
        for name, module in self._model.named_modules():
            if name.endswith("position_embeddings") and getattr(module, "num_embeddings", None):
                positions = min(positions, module.num_embeddings)
                if module.padding_idx is not None:
                    positions -= module.padding_idx + 1  # RoBERTa and similar models count positions from there
        return positions

    def _needs(self, weight: str) -> bool:  # noqa: ARG002  for subclasses
        """Whether the encoder uses a weight that is missing from the model's files."""
        return True

    def _inspect(self, model_dir: Path) -> int | None:  # noqa: ARG002  for subclasses
        """Read the other files of the model, before it is loaded. Returns the input length that they state, in tokens.

        Raises:
            ModelNotFound: when they ask for what is not supported.
        """
        return None

    def _adopt(self) -> None:  # noqa: B027  optional
        """Prepare the steps before and after the model, which is loaded.

        Raises:
            ModelNotFound: when the model is not supported.
        """

    @abstractmethod
    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""

    @abstractmethod
    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """The part of the model's output that is used, with rows as first dimension; ``mask`` (rows, tokens) is 0 at
        padding. Rows that are not finite fail.
        """

    def _scores(self, values: torch.Tensor) -> torch.Tensor:
        """The values of the rows, computed from :meth:`_values`."""
        return values

    @abstractmethod
    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
