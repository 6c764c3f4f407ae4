"""The messages of a chat, as its model's engine takes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from producer.contract.fleet.engine_abilities import Abilities, abilities
from producer.contract.fleet.fleet_schema import Model

from .api_error import Problem
from .parameters import MESSAGE, PART, Parameter, check_fields

_OF_TOOLS = ("tool_calls", "tool_call_id")
_OF_SERVERS = ("name", "reasoning_content", "reasoning", "refusal")
"""Fields that a server behind the engine ``openai`` may know, and that templates of chats do not."""


class Part(BaseModel):
    """A part of a message; what a type other than ``text`` holds is the server's to judge."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


def messages_of(messages: list[ChatMessage], model: Model, unheeded: dict[str, None]) -> list[dict[str, Any]]:
    """The messages of a job. The names of fields without effect are added to ``unheeded``.

    Raises:
        Problem: naming the message and the field that the model's engine does not take.
    """
    able = abilities(model)
    kept: tuple[str, ...] = _OF_TOOLS if able.takes("tools") else ()
    if model.engine == "openai":
        kept += _OF_SERVERS
    return [_message(message, f"messages.{index}", able, kept, unheeded) for index, message in enumerate(messages)]


def _message(
    message: ChatMessage, where: str, able: Abilities, kept: tuple[str, ...], unheeded: dict[str, None]
) -> dict[str, Any]:
    if message.role == "function" or (message.role == "tool" and "tool_calls" not in kept):
        what = "the model's engine calls no tools" if message.role == "tool" else "use the role tool in its place"
        raise Problem(400, f"{where}: {what}", param=f"{where}.role", code="unsupported_parameter")
    extra = message.model_extra or {}
    told = {name: extra[name] for name in kept if extra.get(name) not in (None, [])}
    _heed(MESSAGE, {name: value for name, value in extra.items() if name not in kept}, where, "messages", unheeded)
    content: Any = message.content
    if content is None and "tool_calls" not in told:
        raise Problem(400, f"{where}.content is missing", param=f"{where}.content", code="missing_required_parameter")
    if isinstance(content, list):
        content = _content(content, f"{where}.content", able, unheeded)
    # Templates know of system, user and assistant; OpenAI has developer mean what system did.
    return {"role": "system" if message.role == "developer" else message.role, "content": content, **told}


def _content(parts: list[Part], where: str, able: Abilities, unheeded: dict[str, None]) -> Any:
    """A text, unless there is something else: then the parts."""
    for number, part in enumerate(parts):
        at = f"{where}.{number}"
        if part.type not in able.contents or (part.type == "text" and part.text is None):
            allowed = ", ".join(sorted(able.contents))
            message = f"{at} is of type {part.type!r}; allowed with this model: {allowed}"
            raise Problem(400, message, param=at, code="unsupported_content")
        if part.type == "text":
            _heed(PART, part.model_extra or {}, at, "messages.content", unheeded)
    if all(part.type == "text" for part in parts):
        return "\n".join(part.text or "" for part in parts)
    return [
        {"type": "text", "text": part.text} if part.type == "text" else part.model_dump(exclude_unset=True)
        for part in parts
    ]


def _heed(
    fields: tuple[Parameter, ...], given: dict[str, Any], where: str, named: str, unheeded: dict[str, None]
) -> None:
    """Judge the fields of a message that have no effect; those that are ignored are added to ``unheeded``."""
    if given:
        unheeded.update(dict.fromkeys(f"{named}.{name}" for name in check_fields(fields, given, where)))
