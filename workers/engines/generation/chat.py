"""Chats: from messages to the text of a prompt, by the model's chat template."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from typing import Any

from producer.contract.errors import InvalidJob

from ..text import require_text
from .tools.call_form import Form, form_of


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a chat is written: with ``tools``, with ``arguments`` of the template, and whether its last message is to be
    continued or an answer begins behind it."""

    tools: tuple[dict[str, Any], ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    continues: bool = False
    begins_answer: bool = True


class ChatTemplate:
    """The chat template of a tokenizer, which may have none."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        found = tokenizer.chat_template
        self._text = found.get("tool_use") or found.get("default") if isinstance(found, dict) else found

    @property
    def form(self) -> Form | None:
        """The form of tool calls that it shows."""
        return form_of(self._text)

    def render(self, item: dict[str, Any], index: int, options: ChatOptions) -> str:
        """The text of the chat ``{"messages": [...]}``, which is input ``index``.

        Raises:
            InvalidJob: naming the input, the fault, and what is allowed.
        """
        messages = item.get("messages")
        if item.keys() != {"messages"} or not isinstance(messages, list) or not messages:
            raise InvalidJob(
                f"input {index} has keys {sorted(item)}; "
                'allowed: a text, or {"messages": [...]} with at least one message'
            )
        told = [self._message(message, index) for message in messages]
        if not self._text:
            raise InvalidJob(f"input {index} is a chat, and this model has no chat template; send a text")
        if options.arguments:
            reserved = inspect.signature(self._tokenizer.apply_chat_template).parameters.keys() | {"messages"}
            if taken := sorted(options.arguments.keys() & reserved):
                raise InvalidJob(f"chat_template_kwargs.{taken[0]} is no argument of the template; leave it out")
        try:
            text: str = self._tokenizer.apply_chat_template(
                told,
                tools=list(options.tools) or None,
                add_generation_prompt=options.begins_answer and not options.continues,
                continue_final_message=options.continues,
                tokenize=False,
                **options.arguments,
            )
        except Exception as error:  # the template is the model's own code; many refuse unknown roles and orders
            raise InvalidJob(f"input {index} does not suit the model's chat template: {error}") from None
        return require_text(text, index)

    def _message(self, message: Any, index: int) -> dict[str, Any]:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if not isinstance(message, dict) or "role" not in message or not (calls or "content" in message):
            raise InvalidJob(f"input {index} has a message without role or content; each needs both, as texts")
        role = require_text(message["role"], index)
        if role == "developer" and "developer" not in (self._text or ""):
            role = "system"  # OpenAI has it mean what system did
        told = {**message, "role": role, "content": _content(message.get("content"), index, may_lack=bool(calls))}
        return {**told, "tool_calls": [_call(call, index) for call in calls]} if isinstance(calls, list) else told


def _content(content: Any, index: int, *, may_lack: bool) -> str:
    """The text of a message, whose parts stand on lines of their own."""
    if content is None and may_lack:
        return ""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise InvalidJob(f"input {index} has content of type {kind!r:.40}; allowed: a text, or parts of type text")
    return "\n".join(require_text(part.get("text"), index) for part in parts)


def _call(call: Any, index: int) -> dict[str, Any]:
    """A call of OpenAI's form as templates expect it: its arguments are an object rather than JSON."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidJob(f"input {index} has a tool call without a function's name; give it and its arguments")
    arguments = function.get("arguments") or {}
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        raise InvalidJob(f"input {index} has a tool call whose arguments are no JSON: {arguments!r:.80}") from None
    return {**call, "function": {**function, "arguments": parsed}}
