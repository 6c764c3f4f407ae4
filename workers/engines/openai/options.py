"""What ``options`` of an openai model may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from producer.contract.errors import ConfigError
from producer.contract.job import explain


class OpenAIOptions(BaseModel):
    """Either a ``command`` to start, or the ``url`` of a server that runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = ()
    """Program and arguments. ``{source}``, ``{port}`` and ``{device}`` (cpu or cuda) stand for what they say."""
    url: str | None = None
    """With or without the ``/v1``. Nothing is started then, and nothing stopped."""
    env: dict[str, str] = Field(default_factory=dict)
    """What the command gets on top of the worker's own environment."""
    health: Annotated[str, Field(pattern="^/")] = "/health"
    """Answers 200 when the server is ready, and as long as it is well."""
    start_s: Annotated[float, Field(gt=0)] = 600.0
    """How long the server may take to be ready."""
    stop_s: Annotated[float, Field(gt=0)] = 5.0
    """How long the command has between SIGTERM and SIGKILL."""
    task: Literal["generate", "embeddings"] = "generate"
    model: str | None = None
    """The name that the server has for its model; by default the first that it lists."""
    api_key_env: str | None = None
    """The environment variable that holds the key, for a server that wants one."""

    @field_validator("url")
    @classmethod
    def _without_v1(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("allowed: http://HOST:PORT or https://HOST")
        return url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either command, to start a server, or url, of one that runs")
        return self

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> OpenAIOptions:
        """Check the options of a model.

        Raises:
            ConfigError: with a line for each mistake: key, value, what is allowed.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigError(f"options of an openai model:\n{explain(error)}") from None
