"""A job as the HTTP requests that answer it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from producer.contract.errors import InvalidJob

from ..parameters import GenerationParameters
from ..protocol import Request
from . import wire

EMBEDDED_TOGETHER = 64
"""Inputs of one job in one request for embeddings. Together they fail, but so does their job."""


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request to the engine, on its way."""

    request: Request
    outputs: list[Any]
    asks: list[Ask] = field(default_factory=list)
    """Those not answered yet."""
    usage: dict[str, int] = field(default_factory=dict)
    started_at: float = 0.0
    batch_size: int = 1


@dataclass(slots=True, eq=False)
class Ask:
    """One HTTP request, for ``count`` inputs of its job from ``index`` on. Without a task it waits."""

    job: OpenRequest
    index: int
    count: int
    call: wire.Call
    task: asyncio.Task[None] | None = None


def job_of(request: Request, model: str, task: Literal["generate", "embeddings"]) -> OpenRequest:
    """Everything that is to be asked for a request.

    Raises:
        InvalidJob: naming the input or parameter, what is wrong with it and what is allowed.
    """
    if not request.inputs:
        raise InvalidJob("input = []: give at least one")
    job = OpenRequest(request, [None] * len(request.inputs))
    if task == "embeddings":
        if request.parameters:
            raise InvalidJob(f"parameters has {', '.join(sorted(request.parameters))}; embeddings take none")
        for first in range(0, len(request.inputs), EMBEDDED_TOGETHER):
            items = request.inputs[first : first + EMBEDDED_TOGETHER]
            job.asks.append(Ask(job, first, len(items), wire.embedding(model, items, first)))
    else:
        parameters = GenerationParameters.parse(request.parameters)
        job.asks = [
            Ask(job, index, 1, wire.generation(model, item, index, parameters))
            for index, item in enumerate(request.inputs)
        ]
    return job
