"""The limits of request bodies: a larger one is refused as soon as it is announced, or has been sent, and one that
trickles in when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TOO_LARGE, answer
from ..openai.api_error import Problem

UPLOADS: Collection[str] = ("/v1/files",)
"""Paths with a size limit of their own, which they apply while reading."""

PATIENCE_S = 30.0
"""Seconds that a body may take, and beyond these as many as it takes at this rate:"""
LEAST_BYTES_PER_S = 16 * 1024
"""A slow modem's. Whoever sends less holds a connection for nothing."""


class BodyLimit:
    """Middleware that refuses bodies larger than ``most`` bytes, and those that take too long."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sized = scope["path"] not in UPLOADS
        message = f"the body is larger than the {self._most} bytes allowed (gateway.max_body_bytes)"
        if sized and _announced(scope) > self._most:
            await answer(Problem(413, message, code=TOO_LARGE))(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        began, came, whole = loop.time(), 0, False

        async def counted() -> Message:
            nonlocal came, whole
            if whole:  # what is waited for now is the client's leaving
                return await receive()
            try:
                async with asyncio.timeout_at(began + PATIENCE_S + came / LEAST_BYTES_PER_S):
                    part = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body took too long: {came} bytes came") from None
            came += len(part.get("body", b""))
            whole = not part.get("more_body", False)
            if sized and came > self._most:
                raise HTTPException(413, message)  # what FastAPI lets pass while it reads a body
            return part

        await self._app(scope, counted, send)


def _announced(scope: Scope) -> int:
    """The Content-Length; servers accept numbers only."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), 0)
