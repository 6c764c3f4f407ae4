"""Chats: ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .engine_parameters import alternatives, engine_parameters
from .generation import Alternatives, Generating, calls_of, reasoning_of, refusal_of, texts_of, usage_of
from .logprobs import logprobs_of, of_chat, prompt_logprobs_of
from .messages import ChatMessage, messages_of
from .metadata import Metadata
from .parameters import CHAT
from .translation import Endpoint, TranslatedRequest, job_of, model_of


class ChatRequest(Generating):
    """A chat to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    metadata: Metadata | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    tools: Annotated[list[dict[str, JsonValue]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    @property
    def alternatives(self) -> int | None:
        """The number of alternatives at each token, if log probabilities are asked for.

        Raises:
            Problem: alternatives without log probabilities.
        """
        if self.top_logprobs and not self.logprobs:
            message = "top_logprobs needs logprobs = true"
            raise Problem(400, message, param="top_logprobs", code="invalid_value")
        return (self.top_logprobs or 0) if self.logprobs else None


def order(asked: ChatRequest, settings: Settings, caller: ApiKey) -> TranslatedRequest:
    """What a chat asks for.

    Raises:
        Problem: naming what is wrong with it.
    """
    name, model = model_of(asked, "generate", settings, caller)
    passed, unheeded = engine_parameters(asked, CHAT, name, model)
    messages = messages_of(asked.messages, model, unheeded)
    parameters = asked.sampling(
        asked.max_completion_tokens or asked.max_tokens, settings.gateway.max_tokens, model.engine
    )
    parameters |= passed | alternatives(CHAT, name, model, asked.alternatives)
    stream, choices = bool(asked.stream), asked.n or 1
    include_usage = asked.include_usage
    inputs = [{"messages": messages}] * choices
    job = job_of(asked, name, inputs, parameters, stream, settings, caller, asked.metadata)

    def response(job_id: str, result: Result, created: int) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{job_id}",
            "object": "chat.completion",
            "created": created,
            "model": job.model,
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": text if text or not calls else None,
                        "refusal": refusal,
                        **reasoning,
                        **({"tool_calls": calls} if calls else {}),
                    },
                    "logprobs": of_chat(logprobs),
                    "finish_reason": reason,
                    **prompt_logprobs,
                }
                for index, ((text, reason), reasoning, refusal, calls, logprobs, prompt_logprobs) in enumerate(
                    zip(
                        texts_of(result),
                        reasoning_of(result),
                        refusal_of(result),
                        calls_of(result),
                        logprobs_of(result),
                        prompt_logprobs_of(result),
                        strict=True,
                    )
                )
            ],
            "usage": usage_of(result, choices),
            "service_tier": job.tier,
            "system_fingerprint": None,
        }

    return TranslatedRequest(job, response, True, stream, include_usage, choices, tuple(unheeded))


ENDPOINT = Endpoint("/v1/chat/completions", "generate", ChatRequest, CHAT, order)
