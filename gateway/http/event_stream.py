"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) of a job's output."""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from producer.contract.errors import JobExpired, StokerError

from .disconnect import ClientGone, gone, unless_gone

SILENCE_S = 10.0
"""Seconds of silence after which a comment is sent: proxies cut idle connections."""

Wait = Callable[[], Awaitable[str]]
"""Tells what a stream waits for, on one line."""


async def _waiting() -> str:
    return "waiting"


class EventStream(Response):
    """The events of one job.

    An error before the first event, or the first silence, is a response of its own (:meth:`begin`); a later one is an
    event.

    Args:
        events: the events; raises errors.
        broken_off: makes the last event after an error.
        timeout_s: time limit of the stream, in seconds from now.
        abandon: called when the client has not been sent all of it, to cancel the job.
        told: the text of the comment after a silence, which clients skip.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        broken_off: Callable[[StokerError], bytes],
        headers: Mapping[str, str],
        timeout_s: float | None = None,
        abandon: Callable[[], Awaitable[None]] | None = None,
        told: Wait = _waiting,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._events = events
        self._broken_off = broken_off
        self._abandon = abandon
        self._told = told
        self._deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._next: Task[bytes | None] = self._ask()

    async def begin(self, request: Request) -> EventStream:
        """Wait for the first event, or the first silence.

        Raises:
            ClientGone: the client disconnected.
            StokerError: the job failed before its first event.
        """
        try:
            await unless_gone(request, self._wait())
            if self._next.done():
                self._next.result()
            elif self._overdue:
                raise _too_late()
        except (ClientGone, JobExpired, asyncio.CancelledError):
            await self._end(whole=False)
            raise
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI's signature
        """Send the events until they end or the client disconnects."""
        telling, leaving = asyncio.create_task(self._tell(send)), asyncio.create_task(gone(receive))
        whole = False
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            whole = telling.done() and telling.result()
        finally:
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)
            await self._end(whole)

    async def _tell(self, send: Send) -> bool:
        """Send the events; whether all of them were sent."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        whole = False
        try:
            while (event := await self._event()) is not None:
                await _send(send, event)
            whole = True
        except StokerError as error:
            await _send(send, self._broken_off(error))
        await _send(send, b"", more=False)
        return whole

    async def _event(self) -> bytes | None:
        """The next event, or a comment after a silence; None after the last."""
        if not await self._wait():
            if self._overdue:
                raise _too_late()
            return await self._comment()
        event = self._next.result()
        if event is not None:
            self._next = self._ask()
        return event

    async def _comment(self) -> bytes:
        try:
            return f": {await self._told()}\n\n".encode()
        except (StokerError, RedisError):  # Redis cannot tell now; the events have their own patience with it
            return b": waiting\n\n"

    @property
    def _overdue(self) -> bool:
        return self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline

    async def _wait(self) -> bool:
        wait_s = SILENCE_S
        if self._deadline is not None:
            wait_s = min(wait_s, max(0.0, self._deadline - asyncio.get_running_loop().time()))
        done, _ = await asyncio.wait((self._next,), timeout=wait_s)
        return bool(done)

    def _ask(self) -> Task[bytes | None]:
        async def one() -> bytes | None:
            return await anext(self._events, None)

        return asyncio.create_task(one())

    async def _end(self, whole: bool) -> None:
        self._next.cancel()
        await asyncio.gather(self._next, return_exceptions=True)
        await self._events.aclose()
        if self._abandon is not None and not whole:
            await asyncio.shield(self._abandon())


def _too_late() -> JobExpired:
    return JobExpired("the answer did not end in the time that requests may take (gateway.timeout_s)")


async def _send(send: Send, body: bytes, more: bool = True) -> Any:
    await send({"type": "http.response.body", "body": body, "more_body": more})
