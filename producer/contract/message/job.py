"""The job contract: what is submitted, and what comes back. JSON in both directions."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ..errors import InvalidJob
from ..mistakes import Mistake, by_place
from ..server.redis_url import concealed

TASK = "stoker.infer"
"""The Celery task name every job carries, named explicitly so that any application can send it."""


def _begins_with_a_number(value: object) -> object:
    """A list of anything else is told its faults as a list of inputs, not as one of numbers."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        return value
    raise PydanticCustomError("token_ids", "Input should be a list of token ids")


TokenIds = Annotated[list[Annotated[int, Field(strict=True, ge=0, lt=2**31)]], BeforeValidator(_begins_with_a_number)]
"""A text as the ids of its tokens, by the model's own tokenizer."""

Item = str | TokenIds | dict[str, JsonValue]
"""One input: a text, its token ids, or an object an engine understands such as ``{"messages": [...]}``."""


class Status(StrEnum):
    """The status of a job. An unknown id counts as ``QUEUED``, as in Celery."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(BaseModel):
    """One unit of work for one model: one input, or a list answered as a list.

    ``deadline`` is the instant after which the answer is worth nothing; the job then expires, queued or running, and is
    due by then at the latest. At ``expires`` it ends likewise, but is due no earlier: it is how long a client waits, or
    a result is kept. With ``stream`` its output can be read while it is made. Two jobs of one tenant with the same
    ``idempotency_key`` are the same job: it runs once and both submissions see the one result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    tier: str
    input: Item | list[Item]
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    tenant: Annotated[str, Field(min_length=1, max_length=128)] = "default"
    deadline: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    stream: bool = False
    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def items(self) -> list[Item]:
        """The inputs as a list, however the job was written."""
        return cast("list[Item]", self.input) if self.has_list else [cast("Item", self.input)]

    @property
    def has_list(self) -> bool:
        """Whether it has a list of inputs, so that its output is a list; token ids are one input."""
        return isinstance(self.input, list) and not (self.input and isinstance(self.input[0], int))

    @property
    def ends_at(self) -> datetime | None:
        """The instant at which it expires."""
        return min(filter(None, (self.deadline, self.expires)), default=None)

    @property
    def id(self) -> str:
        """A new id, or the one that this tenant's idempotency key stands for."""
        if self.idempotency_key is None:
            return str(uuid.uuid4())
        return str(uuid.uuid5(_IDEMPOTENCY_NAMESPACE, f"{self.tenant}\0{self.model}\0{self.idempotency_key}"))

    @classmethod
    def parse(cls, fields: object, queue: str | None = None) -> Job:
        """Build a job from untrusted fields; the queue it came from fills in model and tier.

        Raises:
            InvalidJob: naming each field that is wrong, the value found and what is allowed.
        """
        if not isinstance(fields, dict):
            raise InvalidJob(f"a job is an object of named fields, got {type(fields).__name__}")
        if queue is not None:
            model, _, tier = queue.rpartition(".")
            fields = {"model": model, "tier": tier, **fields}
            if (fields["model"], fields["tier"]) != (model, tier):
                raise InvalidJob(
                    f"a job for model {fields['model']!r}, tier {fields['tier']!r} is on queue {queue!r}; "
                    f"send it to {fields['model']}.{fields['tier']}"
                )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidJob(explain(error, fields)) from None


_IDEMPOTENCY_NAMESPACE = uuid.UUID("6ba2c44f-6d51-4cf0-94c1-3a0d8e7c52d4")


class Timing(BaseModel):
    """Where a job's time went, in seconds, and the company it ran in."""

    model_config = ConfigDict(frozen=True)

    waited_s: float | None = None
    """From submission to a worker taking it; None when the producer stamped no time."""
    ran_s: float = 0.0
    batch_size: int = 1
    worker: str = ""


class Result(BaseModel):
    """A finished job. ``output`` has the shape of the job's input: one value, or a list of them."""

    model_config = ConfigDict(frozen=True)

    id: str = ""
    output: Any
    usage: dict[str, int] = Field(default_factory=dict)
    timing: Timing = Timing()


# Numbers of tokens are no secret, and hiding them would hide the mistake: max_new_tokens, max_batch_tokens,
# max_tokens, min_tokens; nor are stop_token_ids.
_SECRET = re.compile(
    "passw|secret|(?<!_new_)(?<!_batch_)(?<!_completion_)(?<!max_)(?<!min_)(?<!stop_)token|credential", re.IGNORECASE
)


def explain(error: ValidationError, whole: object = None, allowed: Callable[[ErrorDetails], str] | None = None) -> str:
    """Each mistake of a pydantic error as ``key = value: what is allowed``, one to a line.

    Args:
        whole: the value that was validated, if it has fields of several types.
        allowed: says what is allowed instead; by default in pydantic's words.
    """
    if whole is None:
        found = [Mistake(".".join(map(str, each["loc"])), each, each["msg"]) for each in error.errors()]
    else:
        found = by_place(error.errors(), whole)
    lines = []
    for place, details, msg in found:
        key = place or "(whole)"
        if details["type"] == "missing":
            lines.append(f"{key} is missing")
            continue
        instead = msg if allowed is None else allowed(details)
        lines.append(f"{key} = {shown(key, details['input'])}: {instead}")
    return "\n".join(lines)


def shown(key: str, value: object) -> str:
    """A value as an error may show it: not when it may be a secret, and not all of a long one."""
    try:
        found = "***" if _SECRET.search(key) else concealed(repr(value))
    except RecursionError:
        found = f"a {type(value).__name__} that is nested too deep to show"
    except ValueError:  # Python writes no integer of more than 4300 digits
        found = f"a {type(value).__name__} with a number that is too long to show"
    return found if len(found) <= 80 else found[:77] + "..."
