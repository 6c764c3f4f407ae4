"""The HTTP requests of a job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from producer.contract.errors import InvalidJob
from producer.contract.fleet.engine_abilities import SAMPLING, of_server
from producer.contract.fleet.engine_options import OpenAIOptions

from ..parameters import GenerationParameters
from ..protocol import Request
from . import wire

EMBEDDED_TOGETHER = 64
"""Most inputs of a job in one HTTP request for embeddings. If one fails, so do all, as does their job anyway."""


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request to the engine that has no outcome yet."""

    request: Request
    outputs: list[Any]
    asks: list[Ask] = field(default_factory=list)
    """The HTTP requests without an answer yet."""
    usage: dict[str, int] = field(default_factory=dict)
    started_at: float = 0.0
    batch_size: int = 1

    @property
    def used(self) -> dict[str, int]:
        """What was used until now. Servers tell when an answer ends; of others, each event counts as a token, and four
        bytes of a prompt."""
        begun = [ask for ask in self.asks if ask.task is not None]
        return {
            "input_tokens": self.usage.get("input_tokens", 0) + sum(len(ask.call.content) // 4 for ask in begun),
            "output_tokens": self.usage.get("output_tokens", 0) + sum(ask.events for ask in begun),
        }


@dataclass(slots=True, eq=False)
class Ask:
    """An HTTP request for ``count`` inputs of a job, beginning with input ``index``. Without a task, it is waiting."""

    job: OpenRequest
    index: int
    count: int
    call: wire.Call
    task: asyncio.Task[None] | None = None
    events: int = 0
    """Pieces of text, of reasoning and of tool calls that have come."""


def job_of(request: Request, model: str, options: OpenAIOptions) -> OpenRequest:
    """Create the HTTP requests for a request to the engine.

    Args:
        model: the server's name of the model.

    Raises:
        InvalidJob: naming the input or parameter, the fault, and what is allowed.
    """
    if not request.inputs:
        raise InvalidJob("input = []: give at least one")
    able = of_server(options)
    for name in request.parameters:
        if not able.takes(name):
            raise InvalidJob(f"parameters.{name}: no such parameter; allowed: {', '.join(sorted(able.parameters))}")
    job = OpenRequest(request, [None] * len(request.inputs))
    own = SAMPLING if options.task == "generate" else frozenset()
    passed = {name: each for name, each in request.parameters.items() if name not in own and each is not None}
    if options.task == "embeddings":
        for first in range(0, len(request.inputs), EMBEDDED_TOGETHER):
            items = request.inputs[first : first + EMBEDDED_TOGETHER]
            job.asks.append(Ask(job, first, len(items), wire.embedding(model, items, first, passed)))
    else:
        given = {name: each for name, each in request.parameters.items() if name in own}
        parameters = GenerationParameters.parse(given)
        job.asks = [
            Ask(job, index, 1, wire.generation(model, item, index, parameters, passed))
            for index, item in enumerate(request.inputs)
        ]
    return job
