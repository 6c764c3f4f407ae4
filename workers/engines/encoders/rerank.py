"""Reranking with a cross-encoder: how well each document answers a query, both read together.

Scores are those of ``CrossEncoder.predict`` of sentence-transformers
(``sentence_transformers/cross_encoder/CrossEncoder.py``), in the shape that Cohere's rerank API made common
(https://docs.cohere.com/reference/rerank).
"""

from __future__ import annotations

import json
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
from ..text import require_text
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
        return [pair for index, item in enumerate(request.inputs) for pair in _pairs(item, index)]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
        top_n = RerankParameters.parse(request.parameters).top_n
        scores = iter(values)
        return [_output(item, scores, top_n) for item in request.inputs]

    def _adopt(self, model_dir: Path) -> None:
        if (labels := self._model.config.num_labels) != 1:
            raise ModelNotFound(
                f"{model_dir} tells {labels} labels apart; a reranker has one, its score. "
                "For labels, use engine = 'classify'"
            )
        self._sigmoid = _activation(model_dir, self._model.config) == "Sigmoid"

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  the model has pooled
        logits: torch.Tensor = output.logits.float().squeeze(-1)
        return logits.sigmoid() if self._sigmoid else logits


def _activation(model_dir: Path, config: Any) -> str:
    """The name of the function that scores go through: each version of sentence-transformers keeps it elsewhere.

    Raises:
        ModelNotFound: when it is another than those two that models have.
    """
    file = model_dir / "config_sentence_transformers.json"
    told = json.loads(file.read_text()).get("activation_fn") if file.exists() else None
    told = told or (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    told = told or getattr(config, "sbert_ce_default_activation_function", None) or "Sigmoid"
    name = str(told).rpartition(".")[2]
    if name not in ("Sigmoid", "Identity"):
        raise ModelNotFound(f"{model_dir} puts its scores through {told}; allowed: Sigmoid, Identity")
    return name


def _pairs(item: Item, index: int) -> list[Text]:
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
