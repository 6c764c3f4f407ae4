"""What ``options`` of a model may hold, by its engine. Here, and not beside the engines, so that a wrong option is
refused when the fleet file is read, and not when a worker starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

PATH = "^/"
"""Pattern of a path of HTTP."""

RESERVED = frozenset(
    {"model", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of", "suffix", "encoding_format"}
)
"""Parameters of the API that are the request itself, or decide on the form of the answer: never a job's to set."""

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


def no_such_key(key: str, keys: Iterable[str]) -> str:
    """What to say of a key that a table does not have, which has ``keys``."""
    near = difflib.get_close_matches(key, keys := list(keys), 1)
    return f"no such key{f'; did you mean {near[0]}?' if near else ''}; allowed: {', '.join(keys)}"


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, options: Any) -> Any:
        unknown = [key for key in options if key not in cls.model_fields] if isinstance(options, dict) else []
        if unknown:
            mistakes = [
                InitErrorDetails(
                    type=PydanticCustomError("no_such_option", "{said}", {"said": no_such_key(key, cls.model_fields)}),
                    loc=(key,),
                    input=options[key],
                )
                for key in unknown
            ]
            raise ValidationError.from_exception_data(cls.__name__, mistakes)
        return options


class EncoderOptions(_Options):
    """Options of an `embed`, `classify` or `rerank` model."""

    max_batch_tokens: Annotated[int, Field(ge=1)] = 4096
    """Tokens in a batch, padding counted. Halved for good when the device runs out of memory."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of an input that are read. Default and maximum: as many as the model can."""
    dtype: Dtype = "float32"
    """Type of the numbers that the model computes with; ``auto`` is that of its files."""


class GenerateOptions(_Options):
    """Options of a `generate` model."""

    dtype: Dtype = "auto"
    """Type of the numbers that the model computes with; ``auto`` is that of its files."""
    max_batch_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest piece of a prompt that one step reads, in tokens; running sequences wait for it."""


class OpenAIOptions(_Options):
    """Options of an `openai` model: either a `command` to start, or the `url` of a server that runs."""

    command: tuple[str, ...] = ()
    """Program and arguments, in which ``{source}``, ``{port}`` (required) and ``{device}`` (``cpu`` or ``cuda``) are
    replaced."""
    url: str | None = None
    """URL of a running server, with or without ``/v1``. It is neither started nor stopped."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the command, added to the worker's."""
    health: Annotated[str, Field(pattern=PATH)] | None = None
    """Path that answers 200 when the server is ready, and as long as it is well. Default: the first that the server has
    of ``/health``, ``/v1/models`` and ``/``."""
    start_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds within which the server must be ready, its downloads included: in place of ``scaling.start_s``."""
    stop_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds between SIGTERM and SIGKILL when the command is stopped."""
    task: Literal["generate", "embeddings"] = "generate"
    """What the server does."""
    model: str | None = None
    """The server's name of its model. Default: the first that it lists."""
    api_key_env: str | None = None
    """Environment variable that holds the server's API key."""
    omit: tuple[str, ...] = ()
    """Parameters that are never sent, for a server that refuses them, such as ``top_k`` or ``stream``. A server that
    refuses ``stream_options`` or ``max_tokens`` needs no entry: it is asked again without, or with
    ``max_completion_tokens``."""

    passes: tuple[str, ...] | Literal["all"] = ()
    """Parameters beyond those of OpenAI's and vLLM's APIs ([engines.md](engines.md)) that jobs may set, passed on to
    the server as they are; ``"all"`` for any. What a server does with them is its own: some let a request choose its
    priority or load code."""
    contents: tuple[Literal["image_url", "input_audio", "video_url", "audio_url", "file"], ...] = ()
    """Types of content that messages may hold besides ``text``, passed on as they are. Jobs are limited by
    ``limits.max_input_bytes`` and ``gateway.max_body_bytes``, content included."""
    fetches: bool = False
    """Whether content may be named by a URL that the server fetches, besides ``data:`` URLs, which hold it. The server
    then sends requests from inside your network to hosts that clients choose."""

    @field_validator("passes")
    @classmethod
    def _not_the_request(cls, passes: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if isinstance(passes, tuple) and (reserved := RESERVED.intersection(passes)):
            raise ValueError(f"{min(reserved)} is the engine's own to set; allowed: other parameters")
        return passes

    @field_validator("omit")
    @classmethod
    def _dispensable(cls, omit: tuple[str, ...]) -> tuple[str, ...]:
        if needed := {"model", "messages", "prompt", "input"}.intersection(omit):
            raise ValueError(f"{min(needed)} is the request itself; allowed: other parameters")
        return omit

    @field_validator("command")
    @classmethod
    def _of_this_machine(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and (program := PurePath(command[0]).name) in ("docker", "nerdctl"):
            raise ValueError(
                f"{program} has a daemon start the server, which the worker can neither tell from other processes nor "
                f"end; allowed: a program that is the server or starts it. For a container: start it with {program} "
                "itself, and give options.url, such as 'http://127.0.0.1:8000', instead of options.command"
            )
        return command

    @field_validator("command")
    @classmethod
    def _says_where(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and not any("{port}" in argument for argument in command):
            raise ValueError(
                "it does not say {port}: the server would not listen where the worker asks; "
                "allowed: a command with it, such as [..., '--port', '{port}']"
            )
        return command

    @field_validator("url")
    @classmethod
    def _without_v1(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # of the port
            valid = False
        if not valid:
            raise ValueError("allowed: http://HOST:PORT or https://HOST")
        return url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either command, to start a server, or url, of one that runs")
        return self


class EchoOptions(_Options):
    """Options of an `echo` model."""

    delay_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that each batch takes."""
    journal: Path | None = None
    """File to which the inputs of every request are appended, as a line of JSON, before it runs."""
    task: Literal["echo", "generate", "embeddings"] = "echo"
    """The engine whose answers it imitates; a stream of ``generate`` tells a word in each batch."""


EngineOptions = EncoderOptions | GenerateOptions | OpenAIOptions | EchoOptions

OPTIONS: dict[str, type[EngineOptions]] = {
    "embed": EncoderOptions,
    "classify": EncoderOptions,
    "rerank": EncoderOptions,
    "generate": GenerateOptions,
    "openai": OpenAIOptions,
    "echo": EchoOptions,
}
"""By engine."""
