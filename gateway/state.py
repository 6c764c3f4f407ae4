"""The state that the requests of one process share: a client of the queue."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from producer.async_client import AsyncClient


async def _client(request: Request) -> AsyncClient:  # not to be run on a thread, as FastAPI does with what is not async
    client: AsyncClient = request.app.state.client
    return client


Client = Annotated[AsyncClient, Depends(_client)]
"""The process's one client. Routes do not close it."""
