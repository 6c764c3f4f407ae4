"""How large a request may be: refused as soon as it says so, or has sent more."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..openai.problem import Problem
from .errors import answer

UPLOADS: Collection[str] = ("/v1/files",)
"""Paths with a limit of their own, which count what they read themselves."""


class BodyTooLarge(Exception):
    """More came than may. Raised where the body is read."""


class BodyLimit:
    """Middleware that lets no body through that is larger than ``most`` bytes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in UPLOADS:
            await self._app(scope, receive, send)
            return
        came, begun = 0, False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise BodyTooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if _announced(scope) > self._most:
                raise BodyTooLarge
            await self._app(scope, counted, noted)
        except BodyTooLarge:
            if begun:
                raise
            message = f"the body is larger than the {self._most} bytes allowed (gateway.max_body_bytes)"
            await answer(Problem(413, message, code="request_too_large"))(scope, receive, send)


def _announced(scope: Scope) -> int:
    """What Content-Length says; servers let only a number through."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length" and value.isdigit()), 0)
