"""What goes over the wire: requests and answers of the OpenAI API, as far as servers agree on it.

Source: https://platform.openai.com/docs/api-reference (completions, chat, embeddings), and of ``top_k`` the servers'
own documentation: vLLM, SGLang, TensorRT-LLM and llama.cpp all take it.
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
    """One HTTP request: a path, and a body of JSON."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """What one event of a stream says: more text, how it ended, what it took; or what went wrong."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: InvalidJob | EngineError | None = None


def generation(model: str, item: Item, index: int, parameters: GenerationParameters) -> Call:
    """Ask for the answer to input ``index``: a text to go on from, or ``{"messages": [...]}``.

    Raises:
        InvalidJob: when it is neither. What else may be wrong with it is the server's to say.
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
    fields: dict[str, Any] = {
        "max_tokens": parameters.max_new_tokens,
        "temperature": parameters.temperature if parameters.do_sample else 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if parameters.do_sample:
        fields["top_p"] = parameters.top_p
        if parameters.top_k:
            fields["top_k"] = parameters.top_k
    if parameters.seed is not None:
        fields["seed"] = (parameters.seed + index) % 2**63  # inputs of one job differ
    if parameters.stop:
        fields["stop"] = parameters.stop
    return fields


def embedding(model: str, items: list[Item], first: int) -> Call:
    """Ask for the embeddings of some inputs of a job, of which ``first`` is the number of the first one.

    Raises:
        InvalidJob: when one of them is not a text.
    """
    texts = [require_text(item, first + number) for number, item in enumerate(items)]
    return _call("/v1/embeddings", model, {"input": texts, "encoding_format": "float"}, first)


def _call(path: str, model: str, fields: dict[str, Any], index: int) -> Call:
    try:
        return Call(path, json.dumps({"model": model, **fields}, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidJob(f"input {index} holds half of a surrogate pair, which is no character") from None


class EventDecoder:
    """Cuts a stream of server-sent events into what each carries.

    An event of this API is one ``data:`` line. Lines end at line feeds alone: text in them may hold other characters
    that ``str.splitlines`` takes for ends of lines, such as U+2028.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[bytes]:
        """The events that are whole now, as JSON; ``[DONE]`` closes the stream."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


def read_event(data: bytes) -> Event:
    """Read one event of a completion or a chat. What is no event of this API is an error, too."""
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
    """The ``count`` embeddings, in the order of the inputs, and the usage.

    Raises:
        EngineError: when the answer is not that.
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
    usage.pop("output_tokens", None)  # servers say 0, or nothing
    return rows, usage


def read_usage(usage: dict[str, Any] | None) -> dict[str, int]:
    """Token counts under our names; empty when the server did not say."""
    usage = usage or {}
    return {ours: int(usage[theirs]) for theirs, ours in _USAGE.items() if usage.get(theirs) is not None}


def is_fault_of_request(status: int) -> bool:
    """Whether an HTTP status blames the request. Not those that blame how the server is set up (401, 403, 404, 405),
    nor those that say later (408, 425, 429): nothing is wrong with the job then."""
    return 400 <= status < 500 and status not in (401, 403, 404, 405, 408, 425, 429)


def said(data: bytes) -> str:
    """The message in the body of an error, wherever this server puts it."""
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
