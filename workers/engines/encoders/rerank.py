"""Reranking: the relevance of documents to a query, scored by a cross-encoder.

Scores equal those of ``CrossEncoder.predict`` of sentence-transformers
(``sentence_transformers/cross_encoder/CrossEncoder.py``). The output has the format of Cohere's rerank API
(https://docs.cohere.com/reference/rerank).
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import AutoModelForSequenceClassification

from producer.contract.errors import InvalidJob, ModelNotFound
from producer.contract.message.job import Item

from ..parameters import RequestParameters
from ..protocol import Request
from ..sources import read_json
from ..text import require_text
from . import sentence_files as files
from .backlog import Text
from .pretrained import PretrainedEncoder

_ALLOWED = '{"query": ..., "documents": [...]}, or {"query": ..., "document": ...}'


class RerankParameters(RequestParameters):
    """The ``parameters`` of a reranking."""

    top_n: Annotated[int, Field(ge=1)] | None = None
    """Number of documents returned, highest scores first; by default all."""


class Reranker(PretrainedEncoder):
    """Returns ``{"results": [{"index", "relevance_score"}, ...]}`` for each input, highest score first.

    An input is ``{"query", "documents"}``, where ``documents`` is a list of texts, truncated to the model's longest
    input; ``index`` is a position in it. For ``{"query", "document"}`` the output is ``{"relevance_score"}``. The score
    is the logit after the activation that the model's files name: by default a sigmoid, between 0 and 1.
    """

    kind = AutoModelForSequenceClassification

    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""
        RerankParameters.parse(request.parameters)
        if not request.inputs:
            raise InvalidJob(f"input = []: give at least one {_ALLOWED}")
        return [
            (self._prompt + query, document)
            for index, item in enumerate(request.inputs)
            for query, document in _pairs(item, index)
        ]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
        top_n = RerankParameters.parse(request.parameters).top_n
        scores = iter(values)
        return [_output(item, scores, top_n) for item in request.inputs]

    def _inspect(self, model_dir: Path) -> int | None:
        root = files.root(model_dir)
        if (root / "modules.json").exists():
            files.modules(root / "modules.json", ["Transformer"], [])
        whole = files.read(files.ScoreModelFile, root / "config_sentence_transformers.json", optional=True)
        text = files.transformer_file(files.ScoreTransformerFile, model_dir)
        self._prompt, self._lower_case = whole.prompt, text.do_lower_case
        self._sigmoid = _activation(model_dir, whole.activation_fn) == "Sigmoid"
        return text.max_seq_length

    def _adopt(self) -> None:
        if (labels := self._model.config.num_labels) != 1:
            raise ModelNotFound(
                f"source = {self._settings.source!r} has {labels} labels; a reranker has one, its score. "
                "For labels, use engine = 'classify'"
            )
        if self._lower_case:
            self._read_lower_case()

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  logits are pooled
        logits: torch.Tensor = output.logits.squeeze(-1)
        return logits

    def _scores(self, values: torch.Tensor) -> torch.Tensor:
        return values.sigmoid() if self._sigmoid else values


def _activation(model_dir: Path, told: str | None) -> str:
    """The name of the activation applied to logits, which versions of sentence-transformers store in different places.

    Raises:
        ModelNotFound: when it is neither ``Sigmoid`` nor ``Identity``.
    """
    config = read_json(model_dir / "config.json")
    told = told or (config.get("sentence_transformers") or {}).get("activation_fn")
    told = told or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    name = str(told).rpartition(".")[2]
    if name not in ("Sigmoid", "Identity"):
        raise ModelNotFound(f"{model_dir} applies {told} to its scores; allowed: Sigmoid, Identity")
    return name


def _pairs(item: Item, index: int) -> list[tuple[str, str]]:
    if not isinstance(item, dict):
        raise InvalidJob(f"input {index} is of type {type(item).__name__}; allowed here: {_ALLOWED}")
    if item.keys() == {"query", "document"}:
        documents: Any = [item["document"]]
    elif item.keys() == {"query", "documents"} and isinstance(item["documents"], list) and item["documents"]:
        documents = item["documents"]
    else:
        raise InvalidJob(f"input {index} has keys {sorted(item)}; allowed: {_ALLOWED} with at least one document")
    query = require_text(item["query"], index)
    return [(query, require_text(document, index)) for document in documents]


def _output(item: Any, scores: Any, top_n: int | None) -> dict[str, Any]:
    if "document" in item:
        return {"relevance_score": next(scores)}
    own = list(islice(scores, len(item["documents"])))
    order = sorted(range(len(own)), key=lambda index: -own[index])[:top_n]
    return {"results": [{"index": index, "relevance_score": own[index]} for index in order]}
