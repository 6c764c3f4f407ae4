"""Headers of every answer: an id of the request, and what its handler adds before it knows its answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "x-request-id"

_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""Ids of clients that are kept: those that are harmless in a header and in a log."""

_ADDED = "stoker.headers"


class AnswerHeaders:
    """Middleware that gives every answer its request's id: the client's, if it sent a sane one, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added: dict[str, str] = {REQUEST_ID: _id_of(scope)}
        scope[_ADDED] = added

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        await self._app(scope, receive, headed)


def add(request: Request, headers: Mapping[str, str]) -> None:
    """Add headers to the answer of a request, whatever it will be."""
    request.scope.setdefault(_ADDED, {}).update(headers)


def _id_of(scope: Scope) -> str:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == REQUEST_ID.encode()), "")
    return given if _SANE.fullmatch(given) else f"req_{uuid.uuid4().hex}"
