"""Reranking with a cross-encoder: how well each document answers a query, both read together.

Scores are those of ``CrossEncoder.predict`` of sentence-transformers
(``sentence_transformers/cross_encoder/CrossEncoder.py``), in the shape that Cohere's rerank API made common
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
from producer.contract.job import Item

from ..parameters import RequestParameters
from ..protocol import Request
from ..sources import read_json
from ..text import require_text
from . import sentence_files as files
from .backlog import Text
from .pretrained import PretrainedEncoder

_ALLOWED = '{"query": ..., "documents": [...]}, or {"query": ..., "document": ...}'


class RerankParameters(RequestParameters):
    """What ``parameters`` of a reranking may hold."""

    top_n: Annotated[int, Field(ge=1)] | None = None
    """So many documents, the best ones; by default all."""


class Reranker(PretrainedEncoder):
    """``{"results": [{"index", "relevance_score"}, ...]}`` per input, the best first; ``index`` counts its documents.

    An input is ``{"query", "documents"}``, documents being texts; what of them the model cannot read is cut off. Of
    ``{"query", "document"}`` the output is ``{"relevance_score"}``. Scores go through the activation that the model's
    files name, by default a sigmoid, and are then between 0 and 1.
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
                f"source = {self._settings.source!r} tells {labels} labels apart; a reranker has one, its score. "
                "For labels, use engine = 'classify'"
            )
        if self._lower_case:
            self._read_lower_case()

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  the model has pooled
        logits: torch.Tensor = output.logits.squeeze(-1)
        return logits

    def _scores(self, values: torch.Tensor) -> torch.Tensor:
        return values.sigmoid() if self._sigmoid else values


def _activation(model_dir: Path, told: str | None) -> str:
    """The name of the function that scores go through: each version of sentence-transformers keeps it elsewhere.

    Raises:
        ModelNotFound: when it is another than those two that models have.
    """
    config = read_json(model_dir / "config.json")
    told = told or (config.get("sentence_transformers") or {}).get("activation_fn")
    told = told or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    name = str(told).rpartition(".")[2]
    if name not in ("Sigmoid", "Identity"):
        raise ModelNotFound(f"{model_dir} puts its scores through {told}; allowed: Sigmoid, Identity")
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
