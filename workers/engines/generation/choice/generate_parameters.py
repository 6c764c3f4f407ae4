"""The ``parameters`` of a job for the engine ``generate``."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...parameters import GenerationParameters

TokenId = Annotated[int, Field(ge=0, lt=2**31)]

Alternatives = Annotated[int, Field(ge=0, le=20)]
"""A number of alternatives whose log probabilities a request may ask for at each token; the limit is OpenAI's."""


class GenerateParameters(GenerationParameters):
    """The ``parameters`` that the engine ``generate`` takes: those of every text generation, and its own.

    Names and meanings are those of OpenAI's and vLLM's APIs.
    """

    max_new_tokens: Annotated[int, Field(ge=0)] = 64
    """0 tells only of the prompt, by ``echo`` or ``prompt_logprobs``."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Tokens less likely than this share of the likeliest one are not drawn."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtracted from a token's logit for each time that the answer has it."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Subtracted from a token's logit if the answer has it."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Divides a positive logit, and multiplies a negative one, of each token of the prompt and the answer."""
    logit_bias: Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] = Field(
        default_factory=dict
    )
    """Added to the logits of tokens, by their ids."""
    stop_token_ids: Annotated[list[TokenId], Field(max_length=128)] = Field(default_factory=list)
    """The answer ends after any of these tokens, which are no part of its text."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens before which the answer does not end by itself, by ``stop`` or by ``stop_token_ids``."""
    ignore_eos: bool = False
    """Whether the answer goes on after the model's own end."""
    response_format: dict[str, Any] | None = None
    """The structure of the answer: ``producer.contract.message.response_format``."""
    tools: list[dict[str, Any]] | None = None
    """What the model may call, in OpenAI's form."""
    tool_choice: str | dict[str, Any] | None = None
    """Whether it may (``auto``), must (``required``, or one by name) or must not (``none``) call one."""
    parallel_tool_calls: bool = True
    """Whether it may call several."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the model's chat template."""
    continue_final_message: bool = False
    """Whether the last message of a chat is continued, rather than answered."""
    add_generation_prompt: bool = True
    """Whether an answer begins behind the last message of a chat."""
    logprobs: Alternatives | None = None
    """Whether the output has the log probability of each token, and of how many likeliest tokens beside it."""
    prompt_logprobs: Alternatives | None = None
    """The same for the tokens of the prompt."""
    echo: bool = False
    """Whether the output begins with the prompt: its text, and its log probabilities if ``logprobs`` is given."""

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """See the base class."""
        if isinstance(bias := fields.get("logit_bias"), dict):  # the keys of JSON are texts
            fields = {**fields, "logit_bias": {_whole(token): value for token, value in bias.items()}}
        return super().parse(fields)

    @model_validator(mode="after")
    def _room_for_the_least(self) -> Self:
        if not self.fits and self.min_tokens > self.max_new_tokens:
            raise ValueError(f"min_tokens is {self.min_tokens}; allowed: up to max_new_tokens = {self.max_new_tokens}")
        if self.max_new_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise ValueError("max_new_tokens is 0; allowed without echo or prompt_logprobs: at least 1")
        return self

    @property
    def told_of_prompt(self) -> int | None:
        """The alternatives that are measured at each token of the prompt; None if nothing is."""
        asked = [self.prompt_logprobs, self.logprobs if self.echo else None]
        return max((each for each in asked if each is not None), default=None)

    @property
    def token_ids(self) -> list[int]:
        """All token ids that it names."""
        return [*self.logit_bias, *self.stop_token_ids]


def _whole(token: Any) -> Any:
    return int(token) if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 11 else token
