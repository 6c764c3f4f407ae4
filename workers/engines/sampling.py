"""How the next token is chosen: the parameters of one request, and the choice itself.

Continuous batching decides on sampling once for a whole batch, and offers a request its own
temperature only by sorting the vocabulary for every row, greedy ones too. Here each row is chosen by
its own parameters: greedy rows stay as they are for the arg-max, sampled ones are drawn from a
generator of their own, so that a seed means the same whoever the neighbours are.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from producer.errors import InvalidJob
from producer.job import explain

Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Parameters(BaseModel):
    """What ``parameters`` of a generation may hold.

    Greedy by default. A temperature, ``top_p`` or ``top_k`` asks for sampling, unless ``do_sample``
    says no; a temperature of 0 is greedy too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    do_sample: bool = False
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 is no limit."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] = []
    """The text ends before the first of these."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _sampling_is_asked_for(cls, fields: dict[str, Any]) -> dict[str, Any]:
        asked = not fields.keys().isdisjoint({"temperature", "top_p", "top_k"})
        return {"do_sample": asked, **fields}

    @model_validator(mode="after")
    def _zero_is_greedy(self) -> Self:
        return self.model_copy(update={"do_sample": False}) if self.temperature == 0 else self

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Parameters:
        """Check a producer's parameters.

        Raises:
            InvalidJob: with a line for each mistake: key, value, what is allowed.
        """
        if unknown := sorted(fields.keys() - cls.model_fields.keys()):
            raise InvalidJob(
                f"parameters.{unknown[0]} = {fields[unknown[0]]!r}: no such parameter; "
                f"allowed: {', '.join(sorted(cls.model_fields))}"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidJob("\n".join(f"parameters.{line}" for line in explain(error).splitlines())) from None


class Sampler:
    """Draws the tokens of one sequence."""

    def __init__(self, parameters: Parameters, index: int) -> None:
        self._parameters = parameters
        self._generator = torch.Generator()
        if parameters.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed((parameters.seed + index) % 2**63)  # inputs of one job differ

    def draw(self, logits: torch.Tensor) -> int:
        """A token id, given the ``logits`` (vocabulary,) of the next position."""
        top_k = self._parameters.top_k or logits.numel()
        scores, ids = (logits.float().cpu() / self._parameters.temperature).sort(descending=True)
        weights = scores[:top_k].softmax(-1)
        if self._parameters.top_p < 1:
            before = weights.cumsum(-1) - weights
            weights = weights[before < self._parameters.top_p]
        return int(ids[torch.multinomial(weights, 1, generator=self._generator)])


class RowSampling(ContinuousBatchingLogitsProcessor):
    """Puts each sampled row's draw above everything else in it, for the batch's arg-max to take."""

    def __init__(self) -> None:
        self.supported_kwargs = {"sampler": Sampler}
        self.ignored_kwargs = ()
        self._samplers: list[Sampler | None] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """The tensor that rows may pass numbers in is not used."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note whose rows come next: without asynchronous batching, the scores follow at once."""
        self._samplers = [request.state.logit_processor_kwargs.get("sampler") for request in requests_with_new_token]
        return torch.zeros(len(requests_with_new_token), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  base class
        """Scores (rows, vocabulary) with the draws raised to infinity."""
        for row, sampler in enumerate(self._samplers):
            if sampler is not None:
                scores[row, sampler.draw(scores[row])] = float("inf")
        return scores
