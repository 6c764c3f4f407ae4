"""API keys: who may use the gateway, for which models and tiers, and how often.

Redis knows a key only by its SHA-256. A slow hash such as bcrypt protects what people choose, by making guesses dear;
a key here is 256 random bits, which nobody guesses at any speed, and is looked up at every request.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "sk-stoker-"
"""So that scanners for leaked secrets know one when they see it."""


class ApiKey(BaseModel):
    """A key as it is kept: everything but itself.

    ``models`` and ``tiers`` are those it may use, None for all. ``requests_per_minute`` is None for any number.
    Times are Unix times in seconds.
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
        """A new key: the secret, which is shown once, and what is kept."""
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
        """Whether it is for that model."""
        return self.models is None or model in self.models

    def may_ask(self, tier: str) -> bool:
        """Whether it is for that tier."""
        return self.tiers is None or tier in self.tiers


ANYBODY = ApiKey(id="", name="nobody asked for a key")
"""Who uses a gateway on loopback while no key was ever made."""


def digest(secret: str) -> str:
    """What Redis knows a key by."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
