"""The wire format: requests of the OpenAI API, and the events of its streams, as far as servers agree on them.

Source: https://platform.openai.com/docs/api-reference (completions, chat, embeddings). ``top_k`` is an extension that
vLLM, SGLang, TensorRT-LLM and llama.cpp document, ``structured_outputs`` one of vLLM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from producer.contract.errors import EngineError, InvalidJob
from producer.contract.message.job import Item

from ..parameters import GenerationParameters
from ..text import require_text, require_token_ids

LONGEST_EVENT_BYTES = 64 * 2**20
"""Longest event of a stream, and longest answer that is no stream: embeddings of 64 inputs take 5 MB."""


@dataclass(frozen=True, slots=True)
class Call:
    """The path and the JSON body of an HTTP request. With ``fits``, its ``max_tokens`` may be left out."""

    path: str
    content: bytes
    fits: bool = False

    def without_length(self) -> Call:
        """The same request, whose answer may be as long as the context has room for."""
        fields = json.loads(self.content)
        fields.pop("max_tokens", None)
        return Call(self.path, json.dumps(fields, ensure_ascii=False).encode())


def generation(
    model: str, item: Item, index: int, parameters: GenerationParameters, passed: dict[str, Any] | None = None
) -> Call:
    """The request that generates from input ``index``: a text to complete, its token ids, or ``{"messages": [...]}``.

    Args:
        passed: parameters that go to the server as they are, but for the names and forms that it has for them.

    Raises:
        InvalidJob: when the input is none of these. All other validation is the server's.
    """
    if isinstance(item, dict):
        messages = item.get("messages")
        if item.keys() != {"messages"} or not isinstance(messages, list) or not messages:
            raise InvalidJob(
                f"input {index} has keys {sorted(item)}; "
                'allowed: a text, or {"messages": [...]} with at least one message'
            )
        chat = {"messages": messages, **_sampling(parameters, index), **_passed(passed or {}, chat=True)}
        return _call("/v1/chat/completions", model, chat, index, parameters.fit)
    prompt = require_token_ids(item, index) if isinstance(item, list) else require_text(item, index)
    if not prompt:
        raise InvalidJob(f"input {index} is empty; give at least one token of text")
    completion = {"prompt": prompt, **_sampling(parameters, index), **_passed(passed or {}, chat=False)}
    return _call("/v1/completions", model, completion, index, parameters.fit)


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


def _passed(passed: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """Parameters that are passed on, as this API has them."""
    fields = dict(passed)
    if chat and "logprobs" in fields:
        likeliest = fields.pop("logprobs")
        fields |= {"logprobs": True, **({"top_logprobs": likeliest} if likeliest else {})}
    form = fields.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("regex", "choice"):
        del fields["response_format"]
        kind = form["type"]
        fields["structured_outputs"] = {kind: form.get("regex" if kind == "regex" else "choices")}
    return fields


def embedding(model: str, items: list[Item], first: int, passed: dict[str, Any] | None = None) -> Call:
    """The request for the embeddings of consecutive inputs of a job, beginning with input ``first``.

    Raises:
        InvalidJob: when an input is neither a text nor token ids, or there are some of both.
    """
    inputs = [
        require_token_ids(item, first + number) if isinstance(item, list) else require_text(item, first + number)
        for number, item in enumerate(items)
    ]
    if len({type(each) for each in inputs}) > 1:
        raise InvalidJob("input holds texts and lists of token ids; allowed: one of the two")
    return _call("/v1/embeddings", model, {"input": inputs, "encoding_format": "float", **(passed or {})}, first)


def _call(path: str, model: str, fields: dict[str, Any], index: int, fits: bool = False) -> Call:
    try:
        return Call(path, json.dumps({"model": model, **fields}, ensure_ascii=False, allow_nan=False).encode(), fits)
    except UnicodeEncodeError:
        raise InvalidJob(f"input {index} holds half of a surrogate pair, which is no character") from None
    except (ValueError, RecursionError) as error:
        raise InvalidJob(f"input {index} cannot be written as JSON: {error}") from None


class EventDecoder:
    """Splits a stream of server-sent events into their data.

    An event of this API is a single ``data:`` line. Only line feeds end lines: text may contain other characters at
    which ``str.splitlines`` would split, such as U+2028.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[bytes]:
        """Add received bytes. Returns the data of each event that is complete now: JSON, or the final ``[DONE]``.

        Raises:
            EngineError: when an event is longer than ``LONGEST_EVENT_BYTES``.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > LONGEST_EVENT_BYTES:
            raise EngineError(f"the server sent an event of more than {LONGEST_EVENT_BYTES} bytes")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
