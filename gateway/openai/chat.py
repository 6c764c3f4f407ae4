"""Chats: ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .generation import Generating, asking, calls_of, reasoning_of, texts_of, usage_of
from .logprobs import logprobs_of, of_chat
from .metadata import Metadata
from .parameters import CHAT, MESSAGE, PART, Parameter, check_fields
from .translation import Endpoint, TranslatedRequest, ignored, job_of


class Part(BaseModel):
    """A part of a message. Only those of type ``text`` are understood."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatRequest(Generating):
    """A chat to be answered."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    metadata: Metadata | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def chatting(self) -> dict[str, Any]:
        """The job's parameters that chats alone have.

        Raises:
            Problem: ``top_logprobs`` without ``logprobs``.
        """
        parameters = asking(self, ("chat_template_kwargs", "continue_final_message", "add_generation_prompt"))
        if self.top_logprobs and not self.logprobs:
            raise Problem(400, "top_logprobs needs logprobs = true", param="top_logprobs", code="invalid_value")
        if self.logprobs:
            parameters["logprobs"] = self.top_logprobs or 0
        if self.tools or self.tool_choice not in (None, "none", "auto"):
            parameters |= asking(self, ("tools", "tool_choice", "parallel_tool_calls"))
        return parameters


def order(asked: ChatRequest, settings: Settings, caller: ApiKey) -> TranslatedRequest:
    """What a chat asks for.

    Raises:
        Problem: naming what is wrong with it.
    """
    unheeded = dict.fromkeys(ignored(asked, CHAT))
    messages = [_message(message, index, unheeded) for index, message in enumerate(asked.messages)]
    most = asked.max_completion_tokens or asked.max_tokens
    stream, choices = bool(asked.stream), asked.n or 1
    include_usage = asked.include_usage
    inputs = [{"messages": messages}] * choices
    job = job_of(
        asked,
        "generate",
        inputs,
        asked.sampling(most, settings.gateway.max_tokens, settings) | asked.chatting(),
        stream,
        settings,
        caller,
        asked.metadata,
    )

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
                        "refusal": None,
                        **reasoning,
                        **({"tool_calls": calls} if calls else {}),
                    },
                    "logprobs": of_chat(logprobs),
                    "finish_reason": reason,
                }
                for index, ((text, reason), reasoning, calls, logprobs) in enumerate(
                    zip(texts_of(result), reasoning_of(result), calls_of(result), logprobs_of(result), strict=True)
                )
            ],
            "usage": usage_of(result, choices),
            "service_tier": job.tier,
            "system_fingerprint": None,
        }

    return TranslatedRequest(job, response, True, stream, include_usage, choices, tuple(unheeded))


def _message(message: ChatMessage, index: int, unheeded: dict[str, None]) -> dict[str, Any]:
    where = f"messages.{index}"
    if message.role == "function":
        raise Problem(
            400, f"{where}: functions are called as tools", param=f"{where}.role", code="unsupported_parameter"
        )
    _heed(MESSAGE, message, where, "messages", unheeded)
    calls = {"tool_calls": message.tool_calls} if message.tool_calls else {}
    answers = {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    if message.content is None and calls:
        return {"role": message.role, "content": None, **calls}
    if message.content is None:
        raise Problem(400, f"{where}.content is missing", param=f"{where}.content", code="missing_required_parameter")
    text = message.content if isinstance(message.content, str) else _text(message.content, f"{where}.content", unheeded)
    # Templates know of system, user and assistant; OpenAI has developer mean what system did.
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": text, **calls, **answers}


def _text(parts: list[Part], where: str, unheeded: dict[str, None]) -> str:
    for number, part in enumerate(parts):
        at = f"{where}.{number}"
        if part.type != "text" or part.text is None:
            raise Problem(400, f"{at} is of type {part.type!r}; allowed: text", param=at, code="unsupported_content")
        _heed(PART, part, at, "messages.content", unheeded)
    return "\n".join(part.text or "" for part in parts)


def _heed(fields: tuple[Parameter, ...], found: BaseModel, where: str, named: str, unheeded: dict[str, None]) -> None:
    """Judge the fields of a message that have no effect; those that are ignored are added to ``unheeded``."""
    if found.model_extra:
        unheeded.update(dict.fromkeys(f"{named}.{name}" for name in check_fields(fields, found.model_extra, where)))


ENDPOINT = Endpoint("/v1/chat/completions", "generate", ChatRequest, CHAT, order)
