"""What chats and completions share: how the next token is chosen, and how the answer ends."""

from __future__ import annotations

import random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from producer.contract.message.job import Result

from .api_error import Problem
from .parameters import STREAM_OPTIONS, check_fields
from .translation import RequestBody

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Alternatives = Annotated[int, Field(ge=0, le=20)]
"""A number of tokens whose log probabilities are told beside a token's own; the limit is OpenAI's."""
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(BaseModel):
    """How a stream is told. With ``include_usage`` its last event counts the tokens."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = None


class Generating(RequestBody):
    """A request for text."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=128)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    ignore_eos: bool | None = None
    response_format: dict[str, JsonValue] | None = None
    prompt_logprobs: Alternatives | bool | None = None

    def sampling(self, max_new_tokens: int | None, default: int, engine: str) -> dict[str, Any]:
        """The job's parameters. Without ``max_new_tokens`` the answer has ``default`` tokens at most, or what the
        context leaves.

        It has a temperature and a seed although the request has none: should its worker die, the next one draws the
        same text, and a stream goes on. Not for a model of the ``openai`` engine: the server has defaults of its own
        for each model, and many servers sample requests with a seed one by one rather than as a batch.
        """
        parameters: dict[str, Any] = {"max_new_tokens": default if max_new_tokens is None else max_new_tokens}
        if max_new_tokens is None:
            parameters["fit"] = True
        if engine != "openai":
            parameters |= {"temperature": 1.0, "seed": random.getrandbits(62)}
        if self.temperature is not None:
            parameters["temperature"] = self.temperature
        if self.seed is not None:
            parameters["seed"] = self.seed % 2**63
        if self.top_p == 0:
            parameters["temperature"] = 0.0
        elif self.top_p is not None:
            parameters["top_p"] = self.top_p
        if self.top_k is not None and self.top_k > 0:
            parameters["top_k"] = self.top_k
        if self.stop:
            parameters["stop"] = self.stop
        return parameters

    @property
    def include_usage(self) -> bool:
        """Whether a stream shall tell its usage.

        Raises:
            Problem: stream options without a stream.
        """
        if self.stream_options is None:
            return False
        if not self.stream:
            raise Problem(
                400, "stream_options needs stream = true", param="stream_options", code="invalid_stream_options"
            )
        check_fields(STREAM_OPTIONS, self.stream_options.model_extra or {}, "stream_options")
        return bool(self.stream_options.include_usage)


def texts_of(result: Result) -> list[tuple[str, str]]:
    """Each answer of a generation, and how it ended: ``stop`` or ``length``.

    Raises:
        Problem: the engine answered with something else.
    """
    try:
        return [(output["text"], output.get("finish_reason", "stop")) for output in result.output]
    except (TypeError, KeyError, AttributeError):
        raise Problem(
            502, "the engine answered with something that is no text", code="engine_answered_no_text"
        ) from None


def reasoning_of(result: Result) -> list[dict[str, str]]:
    """The field ``reasoning_content`` of each answer; empty for an answer without."""
    found = [output.get("reasoning_content") if isinstance(output, dict) else None for output in result.output]
    return [{"reasoning_content": text} if isinstance(text, str) and text else {} for text in found]


def refusal_of(result: Result) -> list[str | None]:
    """Why each answer was refused; None for one that was not."""
    return [output.get("refusal") if isinstance(output, dict) else None for output in result.output]


def calls_of(result: Result) -> list[list[dict[str, Any]]]:
    """The tool calls of each answer."""
    found = [output.get("tool_calls") if isinstance(output, dict) else None for output in result.output]
    return [calls if isinstance(calls, list) else [] for calls in found]


def usage_of(result: Result, choices: int) -> dict[str, Any]:
    """Tokens that were read and made. A prompt with several answers counts once."""
    used = result.usage
    read, made = used.get("input_tokens", 0) // choices, used.get("output_tokens", 0)
    told: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    if "cached_tokens" in used:
        told["prompt_tokens_details"] = {"cached_tokens": used["cached_tokens"] // choices}
    if "reasoning_tokens" in used:
        told["completion_tokens_details"] = {"reasoning_tokens": used["reasoning_tokens"]}
    return told
