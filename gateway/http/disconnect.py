"""Client disconnects: the client's job is cancelled, at once if it is queued, within a step if it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from producer.async_client import AsyncClient
from producer.contract.errors import StokerError
from producer.contract.message.job import Job

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSED = 499
"""The status of a request whose client disconnected, as in nginx. It is never sent; the metrics count it."""


class ClientGone(Exception):
    """The client closed its connection."""


async def gone(receive: Receive) -> None:
    """Return when the client has closed its connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client disconnects first.

    Raises:
        ClientGone: the client disconnected.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(gone(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def give_up(client: AsyncClient, job_id: str, job: Job) -> None:
    """Cancel a job without a client, even if the handler is cancelled. If this fails, its deadline ends it."""
    try:
        await asyncio.shield(client.cancel(job_id, model=job.model, tier=job.tier, tenant=job.tenant))
    except (StokerError, RedisError) as error:
        logger.warning("job %s could not be cancelled; its deadline will end it: %s", job_id, error)


def install(app: FastAPI) -> None:
    """Have the application end requests of disconnected clients without an error."""
    app.add_exception_handler(ClientGone, _nobody_hears)
    app.add_exception_handler(ClientDisconnect, _nobody_hears)  # while a body was read


async def _nobody_hears(_: Request, __: Exception) -> Response:
    return Response(status_code=CLOSED)
