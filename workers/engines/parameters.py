"""Request parameters: their validation, and those of text generation, which several engines share.

Does not import torch: the ``openai`` engine runs without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from producer.contract.errors import InvalidJob
from producer.contract.message.job import explain

GREEDY_BELOW = 1e-5
"""Temperature below which decoding is greedy: logits divided by less overflow in the dtypes of models, and only the
likeliest token would be drawn. vLLM uses the same limit (``vllm/sampling_params.py``, ``_SAMPLING_EPS``)."""

Stop = Annotated[str, Field(min_length=1, max_length=256)]


class RequestParameters(BaseModel):
    """Base of the ``parameters`` that a request may have; each subclass declares its own fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """Validate a producer's parameters.

        Raises:
            InvalidJob: with a line for each mistake: key, value, allowed values.
        """
        if unknown := sorted(fields.keys() - cls.model_fields.keys()):
            raise InvalidJob(
                f"parameters.{unknown[0]} = {fields[unknown[0]]!r}: no such parameter; "
                f"allowed: {', '.join(sorted(cls.model_fields))}"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidJob("\n".join(f"parameters.{line}" for line in explain(error, fields).splitlines())) from None


class GenerationParameters(RequestParameters):
    """The ``parameters`` of text generation.

    Decoding is greedy by default. A temperature, ``top_p`` or ``top_k`` turns on sampling, unless ``do_sample`` is
    false or the temperature is below ``GREEDY_BELOW``. If ``do_sample`` is not in ``model_fields_set``, the request
    says nothing about sampling.
    """

    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    fit: bool = False
    """Whether ``max_new_tokens`` is lowered to what an input leaves of the model's context, where it would otherwise be
    refused. Always so if the request has no ``max_new_tokens``."""
    do_sample: bool = False
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """Number of likeliest tokens that are sampled from; 0 is no limit."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] = []
    """Stop strings: the text ends before the first that occurs."""

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """See the base class. Null asks for nothing, and ``max_tokens`` is another name of ``max_new_tokens``."""
        fields = {name: value for name, value in fields.items() if value is not None}
        if "max_tokens" in fields:
            most = fields.pop("max_tokens")
            fields.setdefault("max_new_tokens", most)
        return super().parse(fields)

    @property
    def fits(self) -> bool:
        """Whether the answer may be shorter than ``max_new_tokens`` for lack of context."""
        return self.fit or "max_new_tokens" not in self.model_fields_set

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _sampling_is_asked_for(cls, fields: dict[str, Any]) -> dict[str, Any]:
        asked = not fields.keys().isdisjoint({"temperature", "top_p", "top_k"})
        return {"do_sample": True, **fields} if asked else fields

    @model_validator(mode="after")
    def _zero_is_greedy(self) -> Self:
        return self.model_copy(update={"do_sample": False}) if self.temperature < GREEDY_BELOW else self
