"""What operators and balancers ask: whether it lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter

from ..connection import AWAY
from ..openai.problem import Problem
from .state import Client

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives. A balancer restarts one that does not answer."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(client: Client) -> dict[str, str]:
    """The queue answers, so requests can be served. A balancer sends none where it does not."""
    try:
        await client.redis.ping()
    except AWAY:
        raise Problem(503, "the queue does not answer", code="broker_unavailable", retry_after_s=1) from None
    return {"status": "ready"}
