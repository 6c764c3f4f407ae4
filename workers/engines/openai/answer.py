"""What a server answers: its schema, and what is taken of it.

Nothing that a server sends is used unchecked: whatever it is, the outcome is an answer or an ``EngineError`` of the one
request. Sources: https://platform.openai.com/docs/api-reference; Azure sends choices without ``delta``, Mistral a
``content`` that is a list of parts, DeepSeek and vLLM ``reasoning_content`` or ``reasoning``.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from producer.contract.errors import EngineError

from .logprobs import Logprobs
from .server_error import ServerError, read_error, shown
from .text_assembly import TextAssembly, whole_characters
from .tool_calls import CallAssembly, CallPiece

MOST_TOKENS = 2**40
"""Largest number of tokens that is believed."""
LONGEST_ANSWER = 2**25
"""Largest number of characters in an answer: a server that never ends must not fill the memory."""
LOGPROB_CHARACTERS = 64
"""Characters that a token's log probabilities count for in the length of an answer."""
FLOAT32_MAX = 3.4028234663852886e38
"""Largest component of an embedding: clients may ask for 32-bit floats."""


def _text(found: Any) -> str:
    """The text of a content, which may be null or a list of parts; other parts than texts are left out."""
    if found is None:
        return ""
    if isinstance(found, str):
        return found
    if not isinstance(found, list):
        raise ValueError("allowed: a text, null, or a list of parts")
    parts = [part.get("text") if isinstance(part, dict) else part for part in found]
    return "".join(part for part in parts if isinstance(part, str))


Text = Annotated[str, PlainValidator(_text)]
"""May hold pieces of characters, which pydantic's own texts may not."""
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenDetails(_Said):
    """Parts of a token count."""

    cached_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None


class Usage(_Said):
    """Token counts, as far as the server reports them."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Token counts under our names."""
        read, made = self.prompt_tokens_details, self.completion_tokens_details
        counts = {
            "input_tokens": self.prompt_tokens,
            "output_tokens": self.completion_tokens,
            "cached_tokens": read.cached_tokens if read is not None else None,
            "reasoning_tokens": made.reasoning_tokens if made is not None else None,
        }
        return {name: count for name, count in counts.items() if count is not None}


class AnsweredMessage(_Said):
    """A message of a chat, or the next piece of one."""

    content: Text = ""
    reasoning: Annotated[Text, Field(validation_alias=AliasChoices("reasoning_content", "reasoning"))] = ""
    refusal: Text = ""
    tool_calls: list[CallPiece] | None = None


class Choice(_Said):
    """An answer, or the next piece of one: of a chat, whole or streamed, or of a completion."""

    index: Annotated[int, Field(ge=0, le=0)] | None = None
    delta: AnsweredMessage | None = None
    message: AnsweredMessage | None = None
    text: Text = ""
    finish_reason: Text = ""
    logprobs: Logprobs | None = None


class Completion(_Said):
    """An event of a stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: Usage | None = None


class EmbeddingItem(_Said):
    """The embedding of input ``index``. Base64 stands for 32-bit floats, little-endian."""

    index: Annotated[int, Field(ge=0)] | None = None
    embedding: Annotated[list[Annotated[float, Field(strict=True)]] | str, Field(min_length=1)]


class Embeddings(_Said):
    """The embeddings of a list of inputs."""

    data: list[EmbeddingItem]
    usage: Usage | None = None


class _Listed(_Said):
    id: Annotated[str, Field(min_length=1)]


class ModelList(_Said):
    """The models of a server."""

    data: Annotated[list[_Listed], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a stream: its text, finish reason, usage and so on, as far as it has them, or the server's error."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    error: ServerError | None = None
    refusal: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()


def read_json(data: bytes) -> Any:
    """Parse JSON whose texts may hold pieces of characters (see ``text_assembly``).

    Raises:
        ValueError: when it is not JSON, or nested too deeply to be parsed.
    """
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_event(data: bytes) -> Event:
    """Parse an event of a completion or a chat, or a whole answer.

    Raises:
        EngineError: when it is neither that nor an error.
    """
    try:
        fields = read_json(data)
        if isinstance(fields, dict) and (fields.get("error") or ("choices" not in fields and "usage" not in fields)):
            return Event(error=read_error(0, data))
        said = Completion.model_validate(fields)
    except ValueError:
        raise EngineError(f"the server sent no event of the OpenAI API: {shown(data)}") from None
    usage = said.usage.counts if said.usage is not None else {}
    if not said.choices:
        return Event(usage=usage)
    choice = said.choices[0]
    message = choice.delta or choice.message or AnsweredMessage(content=choice.text)
    return Event(
        message.content,
        message.reasoning,
        choice.finish_reason,
        usage,
        refusal=message.refusal,
        calls=tuple(message.tool_calls or ()),
        logprobs=choice.logprobs.entries if choice.logprobs is not None else (),
    )


class News(NamedTuple):
    """What is complete with an event: more of the text, of the reasoning, and of tool calls by their numbers; and the
    log probabilities of tokens."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[int, str], ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()


class Answer:
    """A generated answer as its events arrive."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.usage: dict[str, int] = {}
        self._text, self._reasoning = TextAssembly(), TextAssembly()
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._refusal = ""
        self._calls = CallAssembly()
        self._logprobs: list[dict[str, Any]] = []
        self._characters = 0

    def add(self, event: Event) -> News:
        """Add an event. Returns what is complete with it.

        Raises:
            EngineError: when the answer is longer than ``LONGEST_ANSWER``, or a tool call has no name.
        """
        self.usage.update(event.usage)
        if event.finish_reason:
            self.finish_reason = whole_characters(event.finish_reason)
        arguments = sum(len(call.function.arguments) for call in event.calls if call.function is not None)
        self._characters += len(event.text) + len(event.reasoning) + len(event.refusal) + arguments
        self._characters += LOGPROB_CHARACTERS * len(event.logprobs)
        if self._characters > LONGEST_ANSWER:
            raise EngineError(f"the server sent an answer of more than {LONGEST_ANSWER} characters")
        self._refusal += event.refusal
        self._logprobs += event.logprobs
        calls = self._calls.add(list(event.calls)) if event.calls else ()
        text, reasoning = self._text.add(event.text), self._reasoning.add(event.reasoning)
        return self._say(text, reasoning, tuple(calls), event.logprobs)

    def end(self) -> News:
        """End the answer. Returns what its end completes."""
        calls = tuple(self._calls.end())
        return self._say(self._text.add("", last=True), self._reasoning.add("", last=True), calls)

    def _say(
        self,
        text: str,
        reasoning: str,
        calls: tuple[tuple[int, str], ...] = (),
        logprobs: tuple[dict[str, Any], ...] = (),
    ) -> News:
        self._texts.append(text)
        self._reasonings.append(reasoning)
        return News(text, reasoning, calls, logprobs)

    @property
    def output(self) -> dict[str, Any]:
        """The output of the engine: ``text`` and ``finish_reason``, and, as far as there are any,
        ``reasoning_content``, ``refusal``, ``tool_calls`` and ``logprobs``."""
        rest = {
            "reasoning_content": "".join(self._reasonings),
            "refusal": whole_characters(self._refusal),
            "tool_calls": self._calls.calls,
            "logprobs": self._logprobs,
        }
        told = {name: value for name, value in rest.items() if value}
        return {"text": "".join(self._texts), "finish_reason": self.finish_reason, **told}


def read_embeddings(data: bytes, count: int) -> tuple[list[list[float]], dict[str, int]]:
    """Parse ``count`` embeddings, in the order of the inputs, and the usage.

    Raises:
        EngineError: when the response is malformed, has another number of embeddings, embeddings of different lengths,
            or a component that is no number of 32 bits.
    """
    try:
        said = Embeddings.model_validate(read_json(data))
    except ValueError:
        raise EngineError(f"the server sent no embeddings of the OpenAI API: {shown(data)}") from None
    if len(said.data) != count:
        raise EngineError(f"the server sent {len(said.data)} embeddings for {count} inputs")
    by_index = {number if row.index is None else row.index: row.embedding for number, row in enumerate(said.data)}
    if by_index.keys() != set(range(count)):
        raise EngineError(f"the server sent embeddings with the indices {sorted(by_index)[:10]} for {count} inputs")
    rows = [_vector(by_index[index], index) for index in range(count)]
    if len(lengths := {len(row) for row in rows}) > 1:
        raise EngineError(f"the server sent embeddings of different lengths: {sorted(lengths)[:10]}")
    usage = said.usage.counts if said.usage is not None else {}
    usage.pop("output_tokens", None)  # 0 or missing in servers' responses
    return rows, usage


def _vector(embedding: list[float] | str, index: int) -> list[float]:
    vector = _decoded(embedding, index) if isinstance(embedding, str) else embedding
    for number in vector:
        if not math.fabs(number) <= FLOAT32_MAX:  # neither is NaN
            raise EngineError(f"the server sent {number!r} in the embedding of input {index}, which is no 32-bit float")
    return vector


def _decoded(embedding: str, index: int) -> list[float]:
    try:
        packed = base64.b64decode(embedding, validate=True)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (binascii.Error, struct.error, ValueError):
        raise EngineError(
            f"the server sent an embedding of input {index} that is no base64 of 32-bit floats: {embedding[:40]!r}"
        ) from None


def first_model(data: bytes) -> str:
    """The name of the first model in a list of models.

    Raises:
        ValueError: when it is no list of models, or an empty one.
    """
    try:
        return ModelList.model_validate(read_json(data)).data[0].id
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} mistakes, such as {error.errors()[0]['msg']}") from None
