"""API keys: the permission to use the gateway, for some models and tiers, at some rate.

Redis stores a key only as its SHA-256. A slow hash such as bcrypt protects secrets that people choose; a key here is
256 random bits, which cannot be guessed at any speed, and is looked up at every request.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "sk-stoker-"
"""Prefix by which scanners for leaked secrets recognise a key."""


class ApiKey(BaseModel):
    """The record of a key, without its secret.

    ``models`` and ``tiers`` are those it may use, None for all. ``requests_per_minute`` is None for no limit. Times are
    Unix times in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str = ""
    tenant: Annotated[str, Field(min_length=1, max_length=128)] = "default"
    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    created_at: int = 0
    revoked_at: int | None = None

    @classmethod
    def new(
        cls,
        tenant: str,
        *,
        name: str = "",
        models: tuple[str, ...] | None = None,
        tiers: tuple[str, ...] | None = None,
        requests_per_minute: int | None = None,
    ) -> tuple[str, Self]:
        """A new key: the secret, which is shown once, and its record."""
        kept = cls(
            id="key_" + secrets.token_hex(6),
            name=name,
            tenant=tenant,
            models=models,
            tiers=tiers,
            requests_per_minute=requests_per_minute,
            created_at=int(time.time()),
        )
        return PREFIX + secrets.token_urlsafe(32), kept

    def may_use(self, model: str) -> bool:
        """Whether the key may use the model."""
        return self.models is None or model in self.models

    def may_ask(self, tier: str) -> bool:
        """Whether the key may use the tier."""
        return self.tiers is None or tier in self.tiers


ANYBODY = ApiKey(id="", name="nobody asked for a key")
"""The key of clients on loopback while no key exists."""


def digest(secret: str) -> str:
    """The hash under which Redis stores a key."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
