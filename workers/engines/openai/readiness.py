"""The wait for a server to become ready: it passes its health check and, if this worker started it, is the one that
listens on its port."""

from __future__ import annotations

import asyncio
import time

from producer.contract.errors import EngineError

from .client import ServerClient
from .server import EngineServer

POLL_S = 0.2
STRANGER_S = 10.0
"""Seconds for which another process must answer in the server's place before that is final."""


async def until_ready(client: ServerClient, server: EngineServer | None, port: int, start_s: float) -> None:
    """Wait until the server is ready.

    Args:
        server: the server if this worker started it, to listen on ``port``.
        start_s: the longest wait, in seconds.

    Raises:
        EngineError: when the server ends or is not ready in time, with the end of its log, or when another process
            answers in its place.
    """
    deadline = time.monotonic() + start_s
    strange_since = None
    while True:
        if await client.healthy():
            if server is None or (stranger := server.stranger_on(port)) is None:
                return
            obstacle = f"{stranger}, which this worker did not start, listens on port {port} in its place"
            strange_since = strange_since or time.monotonic()
            if time.monotonic() - strange_since > STRANGER_S:
                raise EngineError(
                    f"{obstacle}. If options.command has a daemon start the server, as docker run does: the worker "
                    "could not end it; start it yourself, and give options.url instead"
                )
        else:
            obstacle, strange_since = f"{client.health} did not answer 200 ({client.ailment})", None
        if server is not None and (ended := server.ended):
            raise EngineError(f"the server ended before it was ready: {ended}")
        if time.monotonic() > deadline:
            log = f"; {server.last_lines}" if server is not None else ""
            raise EngineError(f"the server was not ready after options.start_s = {start_s:g} s: {obstacle}{log}")
        await asyncio.sleep(POLL_S)
