"""Completions: ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .engine_parameters import alternatives, engine_parameters
from .generation import Alternatives, Generating, texts_of, usage_of
from .logprobs import likeliest, logprobs_of, of_completion, prompt_logprobs_of
from .parameters import COMPLETION
from .text_input import Texts, texts
from .translation import Endpoint, TranslatedRequest, job_of, model_of

DEFAULT_TOKENS = 16
"""OpenAI's default."""


class CompletionRequest(Generating):
    """Prompts to be completed, ``n`` times each."""

    prompt: Annotated[Texts, Field(description="a text, its token ids, or a list of either")]
    max_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    echo: bool | None = None
    logprobs: Alternatives | Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None


def order(asked: CompletionRequest, settings: Settings, caller: ApiKey) -> TranslatedRequest:
    """What a completion asks for. Its choices are those of the first prompt, then those of the second.

    Raises:
        Problem: naming what is wrong with it.
    """
    name, model = model_of(asked, "generate", settings, caller)
    passed, unheeded = engine_parameters(asked, COMPLETION, name, model)
    prompts = texts(asked.prompt, "prompt", model)
    stream, choices = bool(asked.stream), asked.n or 1
    include_usage = asked.include_usage
    made = _candidates(asked, choices, stream)
    inputs = [prompt for prompt in prompts for _ in range(made)]
    parameters = asked.sampling(asked.max_tokens, DEFAULT_TOKENS, model.engine)
    parameters |= passed | alternatives(COMPLETION, name, model, asked.logprobs)
    if made > choices and "logprobs" not in parameters:  # the likeliest are chosen by them
        parameters |= alternatives((), name, model, 0)
    job = job_of(asked, name, inputs, parameters, stream, settings, caller)

    def response(job_id: str, result: Result, created: int) -> dict[str, Any]:
        usage = usage_of(result, made)
        if made > choices:
            result = likeliest(result, made, choices, keep=asked.logprobs not in (None, False))
        return {
            "id": f"cmpl-{job_id}",
            "object": "text_completion",
            "created": created,
            "model": job.model,
            "choices": [
                {
                    "index": index,
                    "text": text,
                    "logprobs": of_completion(logprobs),
                    "finish_reason": reason,
                    **prompt_logprobs,
                }
                for index, ((text, reason), logprobs, prompt_logprobs) in enumerate(
                    zip(texts_of(result), logprobs_of(result), prompt_logprobs_of(result), strict=True)
                )
            ],
            "usage": usage,
            "service_tier": job.tier,
            "system_fingerprint": None,
        }

    return TranslatedRequest(job, response, False, stream, include_usage, choices, tuple(unheeded))


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
