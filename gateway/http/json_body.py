"""Bodies of requests, read as strictly as workers read jobs: what no worker can read is refused, with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from producer.contract.message import json_text

from ..access.key_route import KeyRoute
from ..openai.api_error import Problem
from .disconnect import CLOSED

MOST_NESTED, MOST_VALUES = 10_000, 500_000
"""Most arrays and objects of a body, and most values: a few megabytes of brackets would hold the event loop, and so all
other requests, for seconds. Room for 4,096 prompts of tokens, or for conversations of thousands of messages."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""Also one that never ends, or each quote within it would be looked from to the end of the body."""


class UnreadableBody(HTTPException):
    """A body is not JSON. An ``HTTPException``, as which alone errors pass through FastAPI's reading of bodies."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.status, str(problem))
        self.problem = problem


class JsonRoute(KeyRoute):
    """A route for callers with an API key, whose body is read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route's requests."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return strictly


class _JsonRequest(Request):
    async def body(self) -> bytes:
        """The body.

        Raises:
            HTTPException: the client hung up. FastAPI would take a ``ClientDisconnect`` for a malformed body.
        """
        try:
            return await super().body()
        except ClientDisconnect:
            raise HTTPException(CLOSED) from None

    async def json(self) -> Any:
        """The value of the body.

        Raises:
            UnreadableBody: it is not JSON, or holds what JSON cannot carry, or too many values.
        """
        text = (await self.body()).removeprefix(json_text.BOM)
        if too_many := _too_many(text):
            raise UnreadableBody(Problem(413, too_many, code="too_many_values"))
        try:
            return json_text.read(text)
        except json_text.NotJson as error:
            if error.place:
                raise UnreadableBody(Problem(400, str(error), param=error.place, code="invalid_value")) from None
            raise UnreadableBody(Problem(400, f"the body is no JSON: {error}", code="invalid_json")) from None


def _too_many(text: bytes) -> str:
    """Why a body is refused before it is decoded; empty if it is not. Counts brackets and commas, which is quick, and
    only if there are many leaves those within strings out."""
    if text.count(b",") < MOST_VALUES and text.count(b"[") + text.count(b"{") <= MOST_NESTED:
        return ""
    bare = _STRING.sub(b"", text)
    if (nested := bare.count(b"[") + bare.count(b"{")) > MOST_NESTED:
        return f"the body holds {nested} arrays and objects: at most {MOST_NESTED} are allowed; send several requests"
    if (values := bare.count(b",")) >= MOST_VALUES:
        return f"the body holds {values} values: fewer than {MOST_VALUES} are allowed; send several requests"
    return ""
