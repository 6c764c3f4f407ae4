"""The wire format: requests and responses of the OpenAI API, as far as servers agree on it.

Source: https://platform.openai.com/docs/api-reference (completions, chat, embeddings). ``top_k`` is an extension that
vLLM, SGLang, TensorRT-LLM and llama.cpp document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from producer.contract.errors import EngineError, InvalidJob
from producer.contract.job import Item

from ..parameters import GenerationParameters
from ..text import require_text

_SAID_CHARS = 500
_USAGE = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


@dataclass(frozen=True, slots=True)
class Call:
    """The path and the JSON body of an HTTP request."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a stream: its text, finish reason and usage, as far as it has them, or an error."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: InvalidJob | EngineError | None = None


def generation(model: str, item: Item, index: int, parameters: GenerationParameters) -> Call:
    """The request that generates from input ``index``: a text to complete, or ``{"messages": [...]}``.

    Raises:
        InvalidJob: when it is neither. All other validation is the server's.
    """
    if isinstance(item, dict):
        messages = item.get("messages")
        if item.keys() != {"messages"} or not isinstance(messages, list) or not messages:
            raise InvalidJob(
                f"input {index} has keys {sorted(item)}; "
                'allowed: a text, or {"messages": [...]} with at least one message'
            )
        return _call("/v1/chat/completions", model, {"messages": messages, **_sampling(parameters, index)}, index)
    if not require_text(item, index):
        raise InvalidJob(f"input {index} is empty; give at least one token of text")
    return _call("/v1/completions", model, {"prompt": item, **_sampling(parameters, index)}, index)


def _sampling(parameters: GenerationParameters, index: int) -> dict[str, Any]:
    """What the request sets. The rest is left to the server, which has defaults for its model."""
    given = parameters.model_fields_set
    fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    if "max_new_tokens" in given:
        fields["max_tokens"] = parameters.max_new_tokens
    if "do_sample" in given and not parameters.do_sample:
        fields["temperature"] = 0
    else:
        fields |= {name: getattr(parameters, name) for name in ("temperature", "top_p") if name in given}
        if parameters.top_k:  # servers do not agree on the number that stands for no limit
            fields["top_k"] = parameters.top_k
    if parameters.seed is not None:
        fields["seed"] = (parameters.seed + index) % 2**63  # inputs of one job differ
    if parameters.stop:
        fields["stop"] = parameters.stop
    return fields


def embedding(model: str, items: list[Item], first: int) -> Call:
    """The request for the embeddings of consecutive inputs of a job, beginning with input ``first``.

    Raises:
        InvalidJob: when an input is not a text.
    """
    texts = [require_text(item, first + number) for number, item in enumerate(items)]
    return _call("/v1/embeddings", model, {"input": texts, "encoding_format": "float"}, first)


def _call(path: str, model: str, fields: dict[str, Any], index: int) -> Call:
    try:
        return Call(path, json.dumps({"model": model, **fields}, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidJob(f"input {index} holds half of a surrogate pair, which is no character") from None


class EventDecoder:
    """Splits a stream of server-sent events into their data.

    An event of this API is a single ``data:`` line. Only line feeds end lines: text may contain other characters at
    which ``str.splitlines`` would split, such as U+2028.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[bytes]:
        """Add received bytes. Returns the data of each event that is complete now: JSON, or the final ``[DONE]``."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


def read_event(data: bytes) -> Event:
    """Parse an event of a completion or a chat. Data that is not an event of this API is an error event."""
    try:
        fields = json.loads(data)
        if error := fields.get("error"):
            return _broken_off(error, data)
        usage = read_usage(fields.get("usage"))
        if not fields["choices"]:
            return Event(usage=usage)
        choice = fields["choices"][0]
        text = choice["delta"].get("content") if "delta" in choice else choice["text"]
        return Event(text or "", choice.get("finish_reason"), usage)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Event(error=EngineError(f"the server sent no event of the OpenAI API: {_shown(data)}"))


def _broken_off(error: Any, data: bytes) -> Event:
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and is_fault_of_request(code):
        return Event(error=InvalidJob(f"the server refused it: {said(data)}"))
    return Event(error=EngineError(f"the server broke off: {said(data)}"))


def read_embeddings(data: bytes, count: int) -> tuple[list[list[float]], dict[str, int]]:
    """Parse ``count`` embeddings, in the order of the inputs, and the usage.

    Raises:
        EngineError: when the response is malformed or has another number of embeddings.
    """
    try:
        fields = json.loads(data)
        rows: list[list[float]] = [
            row["embedding"] for row in sorted(fields["data"], key=lambda row: int(row["index"]))
        ]
        usage = read_usage(fields.get("usage"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EngineError(f"the server sent no embeddings of the OpenAI API: {_shown(data)}") from None
    if len(rows) != count:
        raise EngineError(f"the server sent {len(rows)} embeddings for {count} inputs")
    usage.pop("output_tokens", None)  # 0 or missing in servers' responses
    return rows, usage


def read_usage(usage: dict[str, Any] | None) -> dict[str, int]:
    """Token counts as ``input_tokens`` and ``output_tokens``; empty if the server reports none."""
    usage = usage or {}
    return {ours: int(usage[theirs]) for theirs, ours in _USAGE.items() if usage.get(theirs) is not None}


def is_fault_of_request(status: int) -> bool:
    """Whether an HTTP status means that the request is invalid: not those of a wrong configuration (401, 403, 404,
    405), nor those of a busy server (408, 425, 429)."""
    return 400 <= status < 500 and status not in (401, 403, 404, 405, 408, 425, 429)


def said(data: bytes) -> str:
    """The message in the body of an error response, in any of the forms that servers use."""
    try:
        fields = json.loads(data)
    except ValueError:
        return _shown(data)
    inner = fields.get("error", fields) if isinstance(fields, dict) else fields
    message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    return message[:_SAID_CHARS] if isinstance(message, str) else _shown(data)


def _shown(data: bytes) -> str:
    text = data.decode(errors="replace").strip()
    return text if len(text) <= _SAID_CHARS else text[: _SAID_CHARS - 3] + "..."
