"""The application: routes, error handlers and the shared client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from producer.async_client import AsyncClient
from producer.contract.settings import Settings

from . import disconnect, errors
from .batches.batch_storage import BatchStorage
from .body_limit import BodyLimit
from .metrics import Measured, Metrics
from .routes import batches, files, health, inference, jobs
from .webhooks.delivery import Delivery

ROUTERS: list[APIRouter] = [inference.router, jobs.router, files.router, batches.router, health.router]


def create_app(settings: Settings, loopback: bool = True) -> FastAPI:
    """The gateway of a fleet, to be served by any ASGI server.

    Args:
        loopback: it listens on loopback only; no API key is then needed while none exists.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(settings, withdraws=True) as client:
            app.state.client = client
            delivery = asyncio.create_task(Delivery(client).run())
            with BatchStorage(settings) as app.state.storage:
                yield
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    app = FastAPI(title="Stoker", summary="The OpenAI API in front of a fleet of workers", lifespan=lifespan)
    app.state.loopback = loopback
    app.state.metrics = Metrics()
    errors.install(app)
    disconnect.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit, most=settings.gateway.max_body_bytes)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app
