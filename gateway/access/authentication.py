"""Authentication: the API key of a request must be known, not revoked, and within its rate."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from producer.contract import keys

from ..answer_headers import add
from ..openai.api_error import Problem
from ..state import Client
from .api_key import ANYBODY, ApiKey, digest
from .api_key_store import ADMIT_LUA

LIMIT_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
"""OpenAI's headers of the limit of a key's requests: how many a minute, how many now, and until all of them again."""

_bearer = HTTPBearer(auto_error=False, description="An API key: 'stoker keys create' makes one.")


async def _caller(
    request: Request,
    client: Client,
    given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> ApiKey:
    """The key of a request. On loopback no key is needed until the first one is created.

    Raises:
        Problem: 401 without a known key, 429 beyond its rate.
    """
    name = digest(given.credentials) if given else ""
    admit = client.redis.register_script(ADMIT_LUA)
    stored, made, wait_ms, left, full_ms = await admit([keys.api_keys(), keys.rate(name)], [name])
    if not made and request.app.state.loopback:
        return ANYBODY
    if not given:
        raise Problem(401, "no API key: send 'Authorization: Bearer KEY'", code="missing_api_key")
    if stored is None:
        raise Problem(401, "this API key is not known", code="invalid_api_key")
    key = ApiKey.model_validate_json(stored)
    if key.revoked_at is not None:
        raise Problem(401, "this API key was revoked", code="invalid_api_key")
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
    return key


Caller = Annotated[ApiKey, Depends(_caller)]
"""The key of the request, as a parameter of a route."""
