"""Routes that ask for the API key before anything else: no byte of a body is read for a caller without one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .authentication import authenticate


class KeyRoute(APIRoute):
    """A route for callers with an API key. FastAPI itself would read and decode a body before it looks at any key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route's requests."""
        handle = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            await authenticate(request)
            return await handle(request)

        return admitted
