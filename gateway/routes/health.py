"""Health checks and metrics, for load balancers and operators."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from producer.contract.server.redis_errors import cannot_serve

from ..errors import RESPONSES
from ..openai.api_error import Problem
from ..state import Client

router = APIRouter(tags=["operations"], responses=RESPONSES)

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, dict[str, str]]])


def _get(path: str) -> Callable[[Handler], Handler]:
    """Register a handler for GET, and for what balancers ask instead: HEAD and OPTIONS."""

    def register(handler: Handler) -> Handler:
        router.head(path, include_in_schema=False)(handler)
        router.options(path, include_in_schema=False)(_options)
        return router.get(path)(handler)

    return register


async def _options() -> Response:
    return Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS"})


@_get("/health")
@_get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives. A balancer restarts one that does not answer."""
    return {"status": "ok"}


@_get("/readyz")
async def readyz(client: Client) -> dict[str, str]:
    """The queue answers, so requests can be served. A balancer sends none where it does not."""
    try:
        await client.redis.ping()
    except RedisError as error:
        if not cannot_serve(error):
            raise
        raise Problem(503, "the queue does not answer", code="broker_unavailable", retry_after_s=1) from None
    return {"status": "ready"}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, client: Client) -> Response:
    """For Prometheus: requests and latencies of this gateway, lengths and oldest ages of all queues."""
    return Response(await request.app.state.metrics.told(client), media_type=CONTENT_TYPE_LATEST)
