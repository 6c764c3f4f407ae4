"""The HTTP client of a server.

A request fails with ``ServerRefused`` if it is at fault itself, with ``ServerBusy`` if the server stays too busy, with
``EngineError`` if a healthy server failed it, and with ``ServerLost`` if the server is not healthy.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx2

from producer.contract.errors import ConfigError, EngineError
from producer.contract.fleet.engine_options import OpenAIOptions
from scheduler.lease import retry_backoff

from ... import open_files
from . import answer, server_error, wire
from .dialect import Dialect, refused_parameter
from .health import HealthCheck
from .server_error import ServerError

CONNECT_S = 10.0
BUSY_RETRIES = 6
"""Most retries of a request while the server is busy (status 408, 425, 429 or 503), over 31 to 63 seconds in all, or
longer if the server asks for it."""
LONGEST_PAUSE_S = 60.0
"""Longest pause that a server may ask for. If it asks for more, its client is told so instead."""


class ServerLost(EngineError):
    """The server has ended or fails its health check, so that every request would fail."""


class ServerClient:
    """HTTP connections to one server, used from one event loop.

    ``pausing`` is the number of requests that wait before they are sent again; ``ailment``, why the last health check
    failed.

    Raises:
        ConfigError: when the environment variable for the API key is not set.
    """

    def __init__(self, url: str, options: OpenAIOptions) -> None:
        headers = {}
        if options.api_key_env:
            if not (key := os.environ.get(options.api_key_env)):
                raise ConfigError(f"options.api_key_env: the environment has no {options.api_key_env}")
            headers["Authorization"] = f"Bearer {key.strip()}"
        self.health = HealthCheck(options.health)
        self.pausing = 0
        self.ailment = ""
        self._dialect = Dialect(options.omit)
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

    async def healthy(self) -> bool | None:
        """Whether the server passes its health check; None when it cannot be asked for lack of file descriptors."""

        async def status_of(path: str) -> int:
            async with self._http.stream("GET", path, timeout=CONNECT_S) as response:
                self.ailment = f"{path} answered {response.status_code}"
                return response.status_code

        try:
            return await self.health.well(status_of)
        except (httpx2.HTTPError, OSError) as error:
            self.ailment = f"{self.health}: {error!r}"
            return None if open_files.are_used_up(error) else False

    async def first_model(self) -> str:
        """The name of the first model that the server lists.

        Raises:
            ConfigError: when it lists none.
        """
        try:
            listed = await self._http.get("/v1/models", timeout=CONNECT_S)
            return answer.first_model(listed.raise_for_status().content)
        except (httpx2.HTTPError, ValueError) as error:
            raise ConfigError(
                f"the server lists no model at /v1/models ({error!r}); name the one to ask for in options.model"
            ) from None

    async def generate(
        self, call: wire.Call, hear: Callable[[answer.News], None], deadline: float | None = None
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Stream a generation; returns its output (see ``answer.Answer``) and usage. Cancellation closes the
        connection.

        Args:
            hear: called whenever something arrives, with what is complete with it.
            deadline: time of the monotonic clock after which the request is not sent again.

        Raises:
            ServerRefused, ServerBusy, EngineError, ServerLost: see the module.
        """
        generated = answer.Answer()

        async def take(data: bytes) -> None:
            try:
                event = answer.read_event(data)
            except EngineError as malformed:
                await self._failed(str(malformed))
            if event.error is not None:
                error = event.error.within_stream()
                if type(error) is EngineError:  # may also be the last event of a dying server
                    await self._failed(str(error))
                raise error
            hear(generated.add(event))

        async def read(response: httpx2.Response) -> None:
            if response.headers.get("Content-Type", "").startswith("application/json"):
                await take(await _body(response))
                return
            events = wire.EventDecoder()
            async for received in response.aiter_bytes():
                hear(answer.News())  # a comment is a sign of life, too
                for data in events.feed(received):
                    if data != b"[DONE]":  # read to the end, so that the connection can be reused
                        await take(data)

        await self._send(call, read, deadline)
        hear(generated.end())
        if not generated.finish_reason:
            await self._failed("the server ended its answer in the middle")
        if generated.finish_reason in ("abort", "error"):
            await self._failed(f"the server broke off: finish_reason = {generated.finish_reason!r}")
        return generated.output, generated.usage

    async def embed(
        self, call: wire.Call, count: int, deadline: float | None = None
    ) -> tuple[list[list[float]], dict[str, int]]:
        """Request the embeddings of ``count`` inputs; returns them and the usage. Raises as :meth:`generate` does."""
        body = b""

        async def read(response: httpx2.Response) -> None:
            nonlocal body
            body = await _body(response)

        await self._send(call, read, deadline)
        return answer.read_embeddings(body, count)

    async def _send(
        self, call: wire.Call, read: Callable[[httpx2.Response], Awaitable[None]], deadline: float | None
    ) -> None:
        """Send a request, and pass the response to ``read``.

        It is sent again while the server is busy or file descriptors are lacking, and without parameters that the
        server refuses (see ``dialect``) or a default length for which the context has no room.
        """
        pauses = iter(retry_backoff.delays(BUSY_RETRIES))
        refused: list[str] = []
        while True:
            content = self._dialect.adapt(call.content, refused)
            try:
                said = await self._exchange(call.path, content, read)
            except (httpx2.HTTPError, OSError) as broken:
                if not open_files.are_used_up(broken):
                    await self._failed(f"the connection to the server broke: {broken!r}")
                if not await self._pause(next(pauses, None), deadline):
                    raise open_files.used_up() from None
                continue
            if said is None:
                self._dialect.learn(refused)
                return
            error, wanted_s = said
            if (name := refused_parameter(error, answer.read_json(content))) and name not in refused:
                refused.append(name)
            elif call.fits and error.exceeds_context:
                call = call.without_length()
            elif error.blames_request:
                raise error.refusal()
            elif error.status not in server_error.BUSY:
                await self._failed(f"the server answered {error.status}: {error.message}")
            elif not error.passes or not await self._pause(next(pauses, None), deadline, wanted_s):
                busy = error.busy(wanted_s)
                if error.status == 503 and await self.healthy() is False:  # it may also be broken
                    raise self._lost(str(busy))
                raise busy

    async def _exchange(
        self, path: str, content: bytes, read: Callable[[httpx2.Response], Awaitable[None]]
    ) -> tuple[ServerError, float | None] | None:
        """Send a request once. Returns None if the response was read, otherwise the error, and the pause that the
        server asks for in seconds."""
        headers = {"Content-Type": "application/json"}
        async with self._http.stream("POST", path, content=content, headers=headers) as response:
            if response.is_success:
                await read(response)
                return None
            error = server_error.read_error(response.status_code, await _body(response))
            return error, server_error.retry_after(response.headers.get("Retry-After", ""), datetime.now(UTC))

    async def _pause(self, pause_s: float | None, deadline: float | None, wanted_s: float | None = None) -> bool:
        """Pause before a request is sent again. False, at once, when it must not be."""
        if pause_s is None or (wanted_s or 0.0) > LONGEST_PAUSE_S:
            return False
        pause_s = max(pause_s, wanted_s or 0.0)
        if deadline is not None and time.monotonic() + pause_s >= deadline:
            return False
        self.pausing += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self.pausing -= 1
        return True

    async def _failed(self, what: str) -> NoReturn:
        """Raise the error of a request that failed through no fault of its own.

        If the server is healthy, only this request failed: it is tried again, a limited number of times. An unhealthy
        server would fail every job in the queue and use up their retries, so the engine ends.
        """
        if await self.healthy() is False:
            raise self._lost(what)
        raise EngineError(what)

    def _lost(self, what: str) -> ServerLost:
        return ServerLost(f"{what}; and its health check {self.health} does not answer 200 ({self.ailment})")


async def _body(response: httpx2.Response) -> bytes:
    """The body of a response.

    Raises:
        EngineError: when it is longer than ``wire.LONGEST_EVENT_BYTES``.
    """
    body = bytearray()
    async for received in response.aiter_bytes():
        body += received
        if len(body) > wire.LONGEST_EVENT_BYTES:
            raise EngineError(f"the server sent an answer of more than {wire.LONGEST_EVENT_BYTES} bytes")
    return bytes(body)
