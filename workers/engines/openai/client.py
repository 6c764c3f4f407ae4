"""Asking the server. Every failure is one of three: the request's own, the server's for now, or the server is gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import NoReturn

import httpx2

from producer.contract.engine_options import OpenAIOptions
from producer.contract.errors import ConfigError, EngineError, InvalidJob
from scheduler.lease import retry_backoff

from . import wire

CONNECT_S = 10.0
BUSY_RETRIES = 4
"""How often a request is sent again to a server that says that it is busy: for 8 to 15 seconds in all."""
LONGEST_PAUSE_S = 60.0
_LATER = (408, 425, 429, 503)


class ServerLost(EngineError):
    """The server has ended, or does not answer for itself any more: no request will succeed."""


class ServerClient:
    """HTTP to one server. Belongs to one event loop.

    Raises:
        ConfigError: when the variable that should hold the key is not set.
    """

    def __init__(self, url: str, options: OpenAIOptions) -> None:
        headers = {}
        if options.api_key_env:
            if not (key := os.environ.get(options.api_key_env)):
                raise ConfigError(f"options.api_key_env: the environment has no {options.api_key_env}")
            headers["Authorization"] = f"Bearer {key}"
        self._health = options.health
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers=headers,
            # An answer may take minutes. A server that hangs is the watchdog's case, a job that does the pool's.
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            # The engine bounds what runs. A bound here could be used up by connections whose requests were cancelled.
            # Kept for less than servers keep theirs (uvicorn: 5 s): none is used in the moment that they close it.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0),
            trust_env=options.url is not None,  # no proxy stands between the worker and its own child
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the server says that it is well."""
        try:
            return (await self._http.get(self._health, timeout=CONNECT_S)).is_success
        except httpx2.TransportError:
            return False

    async def first_model(self) -> str:
        """The name of the first model that the server lists.

        Raises:
            ConfigError: when it lists none.
        """
        try:
            answer = await self._http.get("/v1/models", timeout=CONNECT_S)
            return str(answer.raise_for_status().json()["data"][0]["id"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ConfigError(
                f"the server lists no model at /v1/models ({error!r}); name the one to ask for in options.model"
            ) from None

    async def generate(
        self, call: wire.Call, hear: Callable[[wire.Event], None]
    ) -> tuple[dict[str, str], dict[str, int]]:
        """The output ``{"text", "finish_reason"}`` and the usage. Whoever cancels this closes the connection.

        Args:
            hear: is told of every event as it comes.

        Raises:
            InvalidJob, EngineError, ServerLost: see the top of the file.
        """
        text: list[str] = []
        usage: dict[str, int] = {}
        reason: str | None = None

        async def read(response: httpx2.Response) -> None:
            nonlocal reason
            events = wire.EventDecoder()
            async for received in response.aiter_bytes():
                for data in events.feed(received):
                    if data == b"[DONE]":
                        continue  # to the very end, or the connection could not be used again
                    event = wire.read_event(data)
                    if isinstance(event.error, InvalidJob):
                        raise event.error
                    if event.error is not None:  # the last thing that a dying server says, too
                        await self._failed(str(event.error))
                    hear(event)
                    text.append(event.text)
                    usage.update(event.usage)
                    reason = event.finish_reason or reason

        await self._send(call, read)
        if reason is None:
            await self._failed("the server ended its answer in the middle")
        if reason in ("abort", "error"):
            await self._failed(f"the server broke off: finish_reason = {reason!r}")
        return {"text": "".join(text), "finish_reason": str(reason)}, usage

    async def embed(self, call: wire.Call, count: int) -> tuple[list[list[float]], dict[str, int]]:
        """The embeddings of ``count`` inputs, and the usage. Raises as :meth:`generate` does."""
        body = b""

        async def read(response: httpx2.Response) -> None:
            nonlocal body
            body = await response.aread()

        await self._send(call, read)
        return wire.read_embeddings(body, count)

    async def _send(self, call: wire.Call, read: Callable[[httpx2.Response], Awaitable[None]]) -> None:
        """Send a request, again while the server is busy, and let ``read`` have the answer."""
        pauses = iter(retry_backoff.delays(BUSY_RETRIES))
        while True:
            try:
                async with self._http.stream(
                    "POST", call.path, content=call.content, headers={"Content-Type": "application/json"}
                ) as response:
                    if response.is_success:
                        await read(response)
                        return
                    status, said = response.status_code, wire.said(await response.aread())
                    wish = response.headers.get("Retry-After", "")
            except httpx2.TransportError as error:
                await self._failed(f"the connection to the server broke: {error!r}")
            if wire.is_fault_of_request(status):
                raise InvalidJob(f"the server refused it: {said}")
            pause = next(pauses, None) if status in _LATER else None
            if pause is None:
                await self._failed(f"the server answered {status}: {said}")
            wished = min(float(wish), LONGEST_PAUSE_S) if wish.isdigit() else 0.0
            await asyncio.sleep(max(pause, wished))

    async def _failed(self, what: str) -> NoReturn:
        """Raise for a request that failed through no fault of its own.

        A server that is well failed this one request; it is tried again, a limited number of times. One that is not
        would fail all that the queue holds, and use up their retries.
        """
        if await self.healthy():
            raise EngineError(what)
        raise ServerLost(f"{what}; and it does not say at {self._health} that it is well")
