"""Webhooks: their content, signature and retry schedule. No I/O.

Source: the Standard Webhooks specification, https://www.standardwebhooks.com; its libraries verify these signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .target import check_url

SECRET_PREFIX = "whsec_"  # noqa: S105  what a secret begins with is no secret

AGAIN_S = (5.0, 30.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Pauses in seconds after each failed attempt; there is none after the last."""

TIMEOUT_S = 15.0
"""Time limit of one attempt, in seconds."""


def _secret(value: str) -> str:
    try:
        size = len(base64.b64decode(value.removeprefix(SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not value.startswith(SECRET_PREFIX) or not 24 <= size <= 64:
        raise ValueError(f"allowed: {SECRET_PREFIX} and 24 to 64 random bytes in base64")
    return value


class Webhook(BaseModel):
    """The URL that is called when a job ends, and the secret that signs the call."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: Annotated[str, Field(max_length=2048), AfterValidator(check_url)]
    secret: Annotated[str, Field(max_length=128, repr=False), AfterValidator(_secret)]


def headers(webhook: Webhook, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt. ``message_id`` stays the same over attempts, so that receivers can drop repeats.

    Args:
        at: Unix time in seconds; receivers refuse old messages, which prevents replays.
    """
    key = base64.b64decode(webhook.secret.removeprefix(SECRET_PREFIX))
    signed = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "stoker-webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def again_s(failures: int) -> float | None:
    """The pause after ``failures`` failed attempts, in seconds; None to give up."""
    return AGAIN_S[failures - 1] if failures <= len(AGAIN_S) else None


def look_s(age_s: float) -> float:
    """Seconds until a job of that age is checked again; shorter for younger jobs."""
    return min(10.0, max(0.25, age_s / 10))
