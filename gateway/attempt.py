"""Attempts: what a client sends again by itself, because the answer was lost on the way, is the same request.

A request with an ``Idempotency-Key`` is the same as any other of its tenant with that key. The official clients send
none; their header ``x-stainless-retry-count`` tells an attempt that is not the first, which is then the same request as
the one before with the same body. Without either header every request stands for itself.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Request
from redis.exceptions import RedisError

from producer.async_client import AsyncClient
from producer.contract import keys
from producer.contract.server.redis_errors import cannot_serve

from .access.authentication import Caller
from .jobs.job_record import ttl_ms
from .openai.api_error import Problem

logger = logging.getLogger(__name__)

MARGIN_S = 60.0
"""Seconds beyond ``gateway.timeout_s`` after which a repetition without a key is a new request: clients wait for a lost
answer for as long as they have, and pause before they ask again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a request that its client may repeat.

    ``name`` is that of all attempts of the request, ``fingerprint`` that of their body, and ``repeats`` whether there
    may have been an earlier one. ``keyed`` is whether the client named the request by an ``Idempotency-Key``.
    """

    name: str
    fingerprint: str
    keyed: bool
    repeats: bool
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    async def earlier(self, client: AsyncClient) -> str | None:
        """The id of what an earlier attempt has made; None when there was none.

        Raises:
            Problem: 422, it was another request.
        """
        return self._made(await client.redis.get(keys.idempotency(self.name))) if self.repeats else None

    async def claim(self, client: AsyncClient, made: str) -> str:
        """The id of what an earlier attempt has made, or is about to; else ``made``, which later attempts will get.

        Raises:
            Problem: 422, it was another request.
        """
        name, value, ttl = keys.idempotency(self.name), self._value(made), self._ttl_ms(client)
        before = await client.redis.set(name, value, px=ttl, nx=self.repeats, get=True)
        return (self._made(before) if self.repeats else None) or made

    async def note(self, client: AsyncClient, made: str) -> None:
        """Tell later attempts of what this one has made, or waits for. It is done without where Redis cannot."""
        try:
            await client.redis.set(keys.idempotency(self.name), self._value(made), px=self._ttl_ms(client))
        except RedisError as error:
            if not cannot_serve(error):
                raise
            logger.warning("a repetition of this request would be a new one: %s", error)

    async def is_awaited(self, client: AsyncClient) -> bool:
        """Whether what this attempt waited for is wanted although its client has gone: it has a key to come back with,
        or a later attempt waits. Where Redis cannot tell, the job's deadline will end it."""
        if self.keyed:
            return True
        try:
            last = await client.redis.get(keys.idempotency(self.name))
        except RedisError as error:
            if not cannot_serve(error):
                raise
            return True
        return isinstance(last, bytes) and not last.endswith(self.token.encode())

    def _value(self, made: str) -> str:
        return f"{self.fingerprint} {made} {self.token}"

    def _made(self, value: object) -> str | None:
        if not isinstance(value, bytes):
            return None
        fingerprint, made, _ = value.decode().split(" ")
        if fingerprint != self.fingerprint:
            message = "this Idempotency-Key was used for a request that asked for something else"
            raise Problem(422, message, param="Idempotency-Key", code="idempotency_key_reused")
        return made

    def _ttl_ms(self, client: AsyncClient) -> int:
        return ttl_ms(client) if self.keyed else repeats_ms(client)


def repeats_ms(client: AsyncClient) -> int:
    """For how long a client may repeat a request without a key, in milliseconds."""
    return int(1000 * (client.settings.gateway.timeout_s + MARGIN_S))


IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=256, description="The same key is the same request"),
]
RetryCount = Annotated[str | None, Header(alias="x-stainless-retry-count", include_in_schema=False)]


async def _attempt(
    request: Request, caller: Caller, key: IdempotencyKey = None, count: RetryCount = None
) -> Attempt | None:
    counted = count is not None and count.isdecimal()
    if key is None and not counted:
        return None
    body = await request.body()
    fingerprint = hashlib.sha256(body).hexdigest()
    of = f"{caller.tenant}\0{caller.id}\0{request.url.path}\0"
    name = hashlib.sha256(f"{of}{'body' if key is None else 'key'}\0{key or fingerprint}".encode()).hexdigest()
    return Attempt(name, fingerprint, key is not None, key is not None or count not in (None, "0"))


MayRepeat = Annotated[Attempt | None, Depends(_attempt)]
"""The attempt that a request is, as a parameter of a route; None for a request that stands for itself."""
