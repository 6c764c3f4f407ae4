"""The description of the API, for those who may use it: no page that loads scripts of others comes with it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ..access.authentication import Caller
from ..access.key_route import KeyRoute

router = APIRouter(route_class=KeyRoute)


@router.get("/openapi.json", include_in_schema=False)
async def description(request: Request, caller: Caller) -> dict[str, Any]:
    """Describe every endpoint, by OpenAPI 3.1."""
    del caller  # its key has been looked at
    described: dict[str, Any] = request.app.openapi()
    return described
