"""Text classification: labels and scores for each text, or pair of texts.

Scores are made of the model's logits as transformers' text-classification pipeline makes them
(``transformers/pipelines/text_classification.py``).
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import AutoModelForSequenceClassification

from producer.contract.errors import InvalidJob
from producer.contract.job import Item

from ..parameters import RequestParameters
from ..protocol import Request
from ..text import require_text
from .backlog import Text
from .pretrained import PretrainedEncoder


class ClassifyParameters(RequestParameters):
    """What ``parameters`` of a classification may hold."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """So many labels, the best ones; by default all."""


class Classifier(PretrainedEncoder):
    """``[{"label", "score"}, ...]`` per input, the best first.

    An input is a text, or ``{"text", "text_pair"}`` for models that were trained on pairs. Where one label excludes the
    others, scores add up to 1; where each is a question of its own (``problem_type`` of the model's configuration is
    ``multi_label_classification``, or there is but one label), each is between 0 and 1; of a regression they are
    what the model says.
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

    def _values(self, output: Any, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  the model has pooled
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
