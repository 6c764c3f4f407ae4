"""The HTTP client of a server.

A request fails with ``InvalidJob`` if it is at fault itself, with ``EngineError`` if a healthy server failed it, and
with ``ServerLost`` if the server is not healthy.
"""

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
"""Most retries of a request while the server is busy (status 408, 425, 429 or 503), over 8 to 15 seconds in all."""
LONGEST_PAUSE_S = 60.0
_LATER = (408, 425, 429, 503)


class ServerLost(EngineError):
    """The server has ended or fails its health check, so that every request would fail."""


class ServerClient:
    """HTTP connections to one server, used from one event loop.

    Raises:
        ConfigError: when the environment variable for the API key is not set.
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
            # No read timeout: an answer may take minutes. The watchdog detects a hung server, the pool a hung job.
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            # No limit: the engine limits requests, and connections of cancelled ones could use up a limit here.
            # Idle connections expire before the server's do (uvicorn: 5 s), so that none is used while it closes.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0),
            trust_env=options.url is not None,  # the worker's own child is reached without a proxy
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Whether the health check answers 200."""
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
        """Stream a generation; returns its output ``{"text", "finish_reason"}`` and usage. Cancellation closes the
        connection.

        Args:
            hear: called with every event as it arrives.

        Raises:
            InvalidJob, EngineError, ServerLost: see the module.
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
                        continue  # read to the end, so that the connection can be reused
                    event = wire.read_event(data)
                    if isinstance(event.error, InvalidJob):
                        raise event.error
                    if event.error is not None:  # may also be the last event of a dying server
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
        """Request the embeddings of ``count`` inputs; returns them and the usage. Raises as :meth:`generate` does."""
        body = b""

        async def read(response: httpx2.Response) -> None:
            nonlocal body
            body = await response.aread()

        await self._send(call, read)
        return wire.read_embeddings(body, count)

    async def _send(self, call: wire.Call, read: Callable[[httpx2.Response], Awaitable[None]]) -> None:
        """Send a request, with retries while the server is busy, and pass the response to ``read``."""
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
        """Raise the error of a request that failed through no fault of its own.

        If the server is healthy, only this request failed: it is tried again, a limited number of times. An unhealthy
        server would fail every job in the queue and use up their retries, so the engine ends.
        """
        if await self.healthy():
            raise EngineError(what)
        raise ServerLost(f"{what}; and its health check {self._health} does not answer 200")
