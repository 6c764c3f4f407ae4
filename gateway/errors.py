"""Errors in the form of the OpenAI API."""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from producer.contract.errors import BrokerUnavailable, StokerError
from producer.contract.server.redis_errors import cannot_serve

from .http.json_body import UnreadableBody
from .openai.api_error import AWAY_MESSAGE, Problem, problem_of
from .openai.validation_error import mistake

logger = logging.getLogger(__name__)


TOO_LARGE = "request_too_large"


class Json(JSONResponse):
    """JSON in ASCII: input that is echoed may hold a lone surrogate, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, separators=(",", ":")).encode()


class ErrorFields(BaseModel):
    """An error, in words and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorFields


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request cannot be served; the error says why"},
    "5XX": {"model": ErrorBody, "description": "The fleet cannot serve it; the error says why"},
}
"""The error responses in the OpenAPI description of every route."""


def answer(problem: Problem) -> JSONResponse:
    """The response for a problem."""
    headers = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Json(problem.body, problem.status, headers)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StokerError)
    if isinstance(error, BrokerUnavailable):
        logger.warning("%s %s is answered with 503: %s", request.method, request.url.path, error)
    return answer(problem_of(error))


async def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(mistake(error.errors(), error.body))


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UnreadableBody)
    return answer(error.problem)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is nothing at {request.url.path}; see /openapi.json for what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.url.path} does not take {request.method}"
    code = TOO_LARGE if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
    response = answer(Problem(error.status_code, message, code=code))
    response.headers.update(error.headers or {})
    return response


async def _redis(request: Request, error: Exception) -> JSONResponse:
    if cannot_serve(error):
        logger.warning("%s %s is answered with 503: Redis: %s", request.method, request.url.path, error)
        return answer(Problem(503, AWAY_MESSAGE, code="broker_unavailable", retry_after_s=1))
    logger.exception("Redis refused a request", exc_info=error)
    return answer(Problem(500, "the queue refused the request; the gateway's log says why", code="broker_refused"))


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    # Starlette logs it, with its traceback, once this has answered.
    return answer(Problem(500, f"the gateway failed ({type(error).__name__}); its log says why", code="internal_error"))


def install(app: FastAPI) -> None:
    """Install the error handlers."""
    app.add_exception_handler(StokerError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(UnreadableBody, _unreadable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RedisError, _redis)
    app.add_exception_handler(Exception, _unexpected)
