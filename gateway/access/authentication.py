"""Authentication: the API key of a request must be known, not revoked, and within its rate."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.fleet.tenants import DEFAULT

from ..http.answer_headers import add
from ..http.connection_guard import CONNECTION
from ..openai.api_error import Problem
from .api_key import ANYBODY, ApiKey, digest
from .hang_ups import KEY_NAME, PER_S, HangUps
from .same_origin import check_same_origin

LIMIT_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
"""OpenAI's headers of the limit of a key's requests: how many a minute, how many now, and until all of them again."""

_bearer = HTTPBearer(auto_error=False, description="An API key: 'stoker keys create' makes one.")


async def authenticate(request: Request) -> None:
    """Find the key of a request by its headers alone, for :data:`Caller`. On loopback no key is needed until the first
    one is created.

    Raises:
        Problem: 401 without a known key, 403 for a web page of another origin while no key is needed and for a key of
            ``default`` that would escape a quota, 429 beyond the key's rate, or when its
            clients have hung up too often.
    """
    client: AsyncClient = request.app.state.client
    given = _given(request)
    name = digest(given) if given else ""
    setattr(request.state, KEY_NAME, name)
    _refuse_hang_ups(request.app.state.hang_ups, name)
    stored, made, wait_ms, left, full_ms = await request.app.state.admit([keys.api_keys(), keys.rate(name)], [name])
    if not made and request.app.state.loopback:
        check_same_origin(request.headers, client.settings.gateway.cors_origins)
        _admit(request, ANYBODY)
        return
    key = _known(given, stored)
    if key.tenant == DEFAULT and client.settings.bars_default:
        message = f"this API key is of the tenant {DEFAULT!r}, whose jobs no quota makes wait: use a named tenant's"
        raise Problem(403, message, code="tenant_not_allowed")
    if key.requests_per_minute is not None:
        told = (str(key.requests_per_minute), str(left), f"{full_ms / 1000:g}s")
        add(request, dict(zip(LIMIT_HEADERS, told, strict=True)))
    if wait_ms:
        raise Problem(
            429,
            f"this API key may ask {key.requests_per_minute} times a minute",
            code="rate_limit_exceeded",
            retry_after_s=wait_ms / 1000,
        )
    _admit(request, key)


def _refuse_hang_ups(hang_ups: HangUps, name: str) -> None:
    if pause_s := hang_ups.wait_s(name, time.monotonic()):
        raise Problem(
            429,
            f"too many requests of this API key were hung up on before their answer: {PER_S:g} a second are allowed",
            code="too_many_hang_ups",
            retry_after_s=pause_s,
        )


def _admit(request: Request, key: ApiKey) -> None:
    request.state.caller = key
    if (connection := getattr(request.state, CONNECTION, None)) is not None:
        connection.admit()


def _given(request: Request) -> str:
    """The key that a request brings; empty without one."""
    scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
    return given if scheme.lower() == "bearer" else ""


def _known(given: str, stored: bytes | None) -> ApiKey:
    if not given:
        raise Problem(401, "no API key: send 'Authorization: Bearer KEY'", code="missing_api_key")
    if stored is None:
        raise Problem(401, "this API key is not known", code="invalid_api_key")
    key = ApiKey.model_validate_json(stored)
    if key.revoked_at is not None:
        raise Problem(401, "this API key was revoked", code="invalid_api_key")
    return key


async def _caller(request: Request, _: Annotated[object, Security(_bearer)]) -> ApiKey:
    caller: ApiKey = request.state.caller  # set by the route, before it read the body
    return caller


Caller = Annotated[ApiKey, Depends(_caller)]
"""The key of the request, as a parameter of a route."""
