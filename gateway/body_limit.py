"""The limit of request bodies: a larger one is refused as soon as it is announced, or has been sent."""

from __future__ import annotations

from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import TOO_LARGE, answer
from .openai.api_error import Problem

UPLOADS: Collection[str] = ("/v1/files",)
"""Paths with a limit of their own, which they apply while reading."""


class BodyLimit:
    """Middleware that refuses bodies larger than ``most`` bytes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in UPLOADS:
            await self._app(scope, receive, send)
            return
        message = f"the body is larger than the {self._most} bytes allowed (gateway.max_body_bytes)"
        if _announced(scope) > self._most:
            await answer(Problem(413, message, code=TOO_LARGE))(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            part = await receive()
            came += len(part.get("body", b""))
            if came > self._most:
                raise HTTPException(413, message)  # what FastAPI lets pass while it reads a body
            return part

        await self._app(scope, counted, send)


def _announced(scope: Scope) -> int:
    """The Content-Length; servers accept numbers only."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), 0)
