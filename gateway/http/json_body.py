"""Bodies of requests, read as strictly as workers read jobs: what no worker can read is refused, with its place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from producer.contract.message import json_text

from ..access.key_route import KeyRoute
from ..openai.api_error import Problem


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
    async def json(self) -> Any:
        """The value of the body.

        Raises:
            UnreadableBody: it is not JSON, or holds what JSON cannot carry.
        """
        try:
            return json_text.read((await self.body()).removeprefix(json_text.BOM))
        except json_text.NotJson as error:
            if error.place:
                raise UnreadableBody(Problem(400, str(error), param=error.place, code="invalid_value")) from None
            raise UnreadableBody(Problem(400, f"the body is no JSON: {error}", code="invalid_json")) from None
