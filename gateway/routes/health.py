"""Health checks and metrics, for load balancers and operators."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from producer.contract.redis_errors import cannot_serve

from ..errors import RESPONSES
from ..openai.api_error import Problem
from ..state import Client

router = APIRouter(tags=["operations"], responses=RESPONSES)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives. A balancer restarts one that does not answer."""
    return {"status": "ok"}


@router.get("/readyz")
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
