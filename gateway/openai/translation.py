"""Translation of requests: from a request body to a job, and from its result to a response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.settings import Settings
from producer.contract.message.job import Job, Result

from ..access.api_key import ApiKey
from .api_error import Problem
from .model_list import permitted
from .parameters import Parameter
from .service_tier import tier_of
from .validation_error import mistake

Task = Literal["generate", "embeddings"]


class RequestBody(BaseModel):
    """The fields of every request for a model. Other parameters are checked by ``parameters.TABLE``."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """A job to submit. ``response`` makes the answer from the job's id, its result and the Unix time of the request.

    ``chat`` selects the form of streams. ``choices`` is the number of answers for each prompt. ``ignored`` are the
    parameters without effect.
    """

    job: Job
    response: Callable[[str, Result, int], dict[str, Any]]
    chat: bool = False
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of inference: the model of its body, and its translation."""

    path: str
    task: Task
    request: type[RequestBody]
    parameters: tuple[Parameter, ...]
    order: Callable[[Any, Settings, ApiKey], TranslatedRequest]

    def read(self, body: Mapping[str, Any], settings: Settings, caller: ApiKey) -> TranslatedRequest:
        """Translate a body that was read from JSON.

        Raises:
            Problem: naming the parameter, what was found and what is allowed.
        """
        try:
            asked = self.request.model_validate(body)
        except ValidationError as error:
            raise mistake(error.errors(), body) from None
        return self.order(asked, settings, caller)


def model_of(asked: RequestBody, task: Task, settings: Settings, caller: ApiKey) -> tuple[str, Model]:
    """The name of the model that a request is for, and the model.

    Raises:
        Problem: the model is unknown or not permitted, or is for another task.
    """
    name = permitted(asked.model, settings, caller)
    model = settings.model(name)
    if model.task != task:
        does = f"serves {model.task}" if model.task else "is served by /v1/jobs"
        raise Problem(
            400, f"the model {asked.model!r} {does}, not {task}", param="model", code="model_does_not_serve_this"
        )
    return name, model


def job_of(
    asked: RequestBody,
    name: str,
    inputs: list[Any],
    parameters: dict[str, Any],
    stream: bool,
    settings: Settings,
    caller: ApiKey,
    metadata: dict[str, str] | None = None,
) -> Job:
    """The job of a request, of its caller's tenant, on the tier that it asks for.

    Args:
        name: of the model.

    Raises:
        Problem: the tier is unknown or not permitted.
    """
    return Job.parse(
        {
            "model": name,
            "tier": tier_of(asked.service_tier, name, settings, caller),
            "input": inputs,
            "parameters": parameters,
            "tenant": caller.tenant,
            "stream": stream,
            "metadata": metadata or {},
        }
    )
