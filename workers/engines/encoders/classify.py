"""Text classification: labels with scores for each text, or pair of texts.

Scores are computed from the logits as in the text-classification pipeline of transformers
(``transformers/pipelines/text_classification.py``).
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import AutoModelForSequenceClassification

from producer.contract.errors import InvalidJob
from producer.contract.message.job import Item

from ..parameters import RequestParameters
from ..protocol import Request
from ..text import require_text
from .backlog import Text
from .pretrained import PretrainedEncoder


class ClassifyParameters(RequestParameters):
    """The ``parameters`` of a classification."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Number of labels returned, highest scores first; by default all."""


class Classifier(PretrainedEncoder):
    """Returns ``[{"label", "score"}, ...]`` for each input, highest score first.

    An input is a text, or ``{"text", "text_pair"}`` for models that were trained on pairs. Scores of single-label
    classification are a softmax and add up to 1. Scores of multi-label classification (the configuration has
    ``problem_type = "multi_label_classification"``, or a single label) are sigmoids, each between 0 and 1. Scores of a
    regression are the logits.
    """

    kind = AutoModelForSequenceClassification

    def texts(self, request: Request) -> list[Text]:
        """See ``micro_batches``."""
        ClassifyParameters.parse(request.parameters)
        if not request.inputs:
            raise InvalidJob("input = []: give at least one text")
        return [_text(item, index) for index, item in enumerate(request.inputs)]

    def answer(self, request: Request, values: list[Any]) -> list[Any]:
        """See ``micro_batches``."""
        top_k = ClassifyParameters.parse(request.parameters).top_k
        return [self._best_first(scores)[:top_k] for scores in values]

    def _best_first(self, scores: list[float]) -> list[dict[str, Any]]:
        told = [{"label": label, "score": score} for label, score in zip(self._labels, scores, strict=True)]
        return sorted(told, key=lambda each: -float(each["score"]))

    def _adopt(self) -> None:
        config = self._model.config
        self._labels: list[str] = [config.id2label[number] for number in range(config.num_labels)]
        self._regression = config.problem_type == "regression"
        self._exclusive = config.problem_type != "multi_label_classification" and config.num_labels > 1

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  logits are pooled
        logits: torch.Tensor = output.logits
        return logits

    def _scores(self, values: torch.Tensor) -> torch.Tensor:
        if self._regression:
            return values
        return values.softmax(-1) if self._exclusive else values.sigmoid()


def _text(item: Item, index: int) -> Text:
    if not isinstance(item, dict):
        return require_text(item, index)
    if item.keys() != {"text", "text_pair"}:
        raise InvalidJob(f"input {index} has keys {sorted(item)}; allowed: a text, or text and text_pair together")
    return require_text(item["text"], index), require_text(item["text_pair"], index)
