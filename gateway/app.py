"""The application: routes, error handlers and the shared client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from producer.async_client import AsyncClient
from producer.contract.fleet.settings import Settings

from . import errors
from .access.api_key_store import ADMIT_LUA
from .access.authentication import LIMIT_HEADERS
from .access.hang_ups import HangUps
from .availability import Availability
from .batches.storage.batch_storage import BatchStorage
from .forgetting import Forgetting
from .http import disconnect
from .http.answer_headers import AnswerHeaders
from .http.body_limit import BodyLimit
from .metrics import Measured, Metrics
from .routes import batches, description, files, health, inference, jobs
from .webhooks.delivery import Delivery

ROUTERS: list[APIRouter] = [
    *(inference.router, jobs.router, files.router, batches.router),
    *(health.router, description.router),
]


METHODS = ("GET", "POST", "DELETE")
"""Methods that web pages of other origins may use, if any may."""

EXPOSED = ("x-request-id", "x-stoker-job", "x-stoker-ignored", "retry-after", "location")
"""Headers that their scripts may read."""


class _Application(FastAPI):
    origins: tuple[str, ...] = ()

    def build_middleware_stack(self) -> ASGIApp:
        """The middlewares. Outermost are those of which also the answer to an unexpected error has need, which
        Starlette makes outside of all that ``add_middleware`` adds."""
        stack: ASGIApp = Measured(super().build_middleware_stack(), self.state.metrics, self.state.hang_ups)
        if self.origins:
            exposed = (*EXPOSED, *LIMIT_HEADERS)
            stack = CORSMiddleware(stack, self.origins, METHODS, ("*",), expose_headers=exposed)
        return AnswerHeaders(stack)


REREAD_S = 1.0
"""Interval at which the fleet file is looked at, in seconds: longer than the batch process's, so that a batch for a new
model is not checked by a process that does not know it yet."""


def create_app(settings: Settings, loopback: bool = True, reread: Callable[[], Settings] | None = None) -> FastAPI:
    """The gateway of a fleet, to be served by any ASGI server.

    Args:
        loopback: it listens on loopback only; no API key is then needed while none exists.
        reread: the present settings, such as :meth:`FleetFile.again`; by default they stay as they are.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(settings, reads=True) as client:
            app.state.client = client
            app.state.admit = client.redis.register_script(ADMIT_LUA)
            app.state.forgetting = Forgetting(client)
            beside = [asyncio.create_task(Delivery(client).run()), asyncio.create_task(app.state.forgetting.run())]
            if reread is not None:
                beside.append(asyncio.create_task(_follow(client, reread)))
            with BatchStorage(settings) as app.state.storage:
                yield
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    app = _Application(
        title="Stoker",
        summary="The OpenAI API in front of a fleet of workers",
        openapi_url=None,  # routes/description.py
        lifespan=lifespan,
    )
    app.origins = settings.gateway.cors_origins
    app.state.loopback = loopback
    app.state.metrics = Metrics()
    app.state.availability = Availability()
    app.state.hang_ups = HangUps()
    errors.install(app)
    disconnect.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit, most=settings.gateway.max_body_bytes)
    return app


async def _follow(client: AsyncClient, reread: Callable[[], Settings]) -> None:
    while True:
        await asyncio.sleep(REREAD_S)
        client.settings = await asyncio.to_thread(reread)
