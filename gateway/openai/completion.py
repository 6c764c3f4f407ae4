"""Completions: ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .generation import Generating, texts_of, usage_of
from .logprobs import likeliest, logprobs_of, of_completion
from .parameters import COMPLETION
from .text_input import Texts, texts
from .translation import Endpoint, TranslatedRequest, ignored, job_of

DEFAULT_TOKENS = 16
"""OpenAI's default."""


class CompletionRequest(Generating):
    """Prompts to be completed, ``n`` times each."""

    max_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | Literal[False] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None
    prompt: Annotated[Texts, Field(description="a text or its tokens, or a list of either")]


def order(asked: CompletionRequest, settings: Settings, caller: ApiKey) -> TranslatedRequest:
    """What a completion asks for. Its choices are those of the first prompt, then those of the second.

    Raises:
        Problem: naming what is wrong with it.
    """
    unheeded = ignored(asked, COMPLETION)
    prompts = texts(asked.prompt, "prompt")
    stream, choices = bool(asked.stream), asked.n or 1
    include_usage = asked.include_usage
    made = _candidates(asked, choices, stream)
    inputs = [prompt for prompt in prompts for _ in range(made)]
    parameters = asked.sampling(asked.max_tokens, DEFAULT_TOKENS, settings)
    logprobs = None if asked.logprobs is False else asked.logprobs
    if logprobs is not None or made > choices:  # the likeliest are chosen by them
        parameters["logprobs"] = logprobs or 0
    if asked.echo:
        parameters["echo"] = True
    job = job_of(asked, "generate", inputs, parameters, stream, settings, caller)

    def response(job_id: str, result: Result, created: int) -> dict[str, Any]:
        usage = usage_of(result, made)
        if made > choices:
            result = likeliest(result, made, choices, keep=logprobs is not None)
        return {
            "id": f"cmpl-{job_id}",
            "object": "text_completion",
            "created": created,
            "model": job.model,
            "choices": [
                {"index": index, "text": text, "logprobs": of_completion(logprobs), "finish_reason": reason}
                for index, ((text, reason), logprobs) in enumerate(
                    zip(texts_of(result), logprobs_of(result), strict=True)
                )
            ],
            "usage": usage,
            "service_tier": job.tier,
            "system_fingerprint": None,
        }

    return TranslatedRequest(job, response, False, stream, include_usage, choices, unheeded)


def _candidates(asked: CompletionRequest, choices: int, stream: bool) -> int:
    """How many answers are made for each prompt.

    Raises:
        Problem: ``best_of`` is fewer than are given, or the answer is streamed.
    """
    made = asked.best_of or choices
    if made < choices or (made > choices and stream):
        said = f"best_of is {made}; allowed: at least n = {choices}, and no more in a stream"
        raise Problem(400, said, param="best_of", code="invalid_value")
    return made


ENDPOINT = Endpoint("/v1/completions", "generate", CompletionRequest, COMPLETION, order)
