"""``python -m benchmarks.walls.attackers NAME PORT [KEY]``: an attack on a gateway of 127.0.0.1."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
CROWD = 400
"""Connections held at a time; a gateway of 256 descriptors has room for less."""
MEGABYTE = 1_000_000
BODY_BYTES = 4 * MEGABYTE
HANG_UP_S, HANG_UPS_PER_S = 0.01, 400.0
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def pipeline(port: int, _: str) -> None:
    """100 MB of requests on one connection, of which no answer is read."""
    await _pour(port, b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)


async def headers(port: int, _: str) -> None:
    """100 MB of headers on one connection."""
    await _pour(port, b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-Filler: 0123456789\r\n" * 3000)


async def header(port: int, _: str) -> None:
    """One header without end."""
    await _pour(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: ", b"0" * 65536)


async def url(port: int, _: str) -> None:
    """One URL without end."""
    await _pour(port, b"GET /", b"0" * 65536)


async def trailers(port: int, _: str) -> None:
    """100 MB of trailers behind a body in chunks."""
    begin = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    await _pour(port, begin, b"X-Filler: 0123456789\r\n" * 3000)


async def bodies(port: int, key: str) -> None:
    """Bodies of 4 MB, two at a time, that take long to decode."""
    content = b"[" + b"[]," * (BODY_BYTES // 3 - 1) + b"[]]"
    authorization = f"Authorization: Bearer {key}\r\n".encode() if key else b""
    request = HEAD + authorization + b"Content-Length: %d\r\n\r\n" % len(content) + content

    async def again() -> None:
        while True:
            await _once(port, request)

    await asyncio.gather(again(), again())


async def half_heads(port: int, _: str) -> None:
    """Connections that send half a head and then nothing, as many as there may be, each opened again when it ends."""
    await _hold(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Half: ", b"")


async def trickle(port: int, _: str) -> None:
    """Connections that send the body of 4 MB that they announce a byte a second."""
    await _hold(port, HEAD + b"Content-Length: %d\r\n\r\n" % BODY_BYTES, b"0")


async def unread(port: int, _: str) -> None:
    """Connections that ask for pages and read none."""
    await _hold(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 64, b"")


async def hang_up(port: int, key: str) -> None:
    """A tenant that asks 400 times a second and hangs up after 10 ms."""
    content = json.dumps({"model": "talk", "prompt": "word " * 100, "max_tokens": 100}).encode()
    request = HEAD + b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (key.encode(), len(content)) + content

    async def once() -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(request)
            await asyncio.sleep(HANG_UP_S)
            writer.transport.abort()

    began, running = time.monotonic(), set()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, began + number / HANG_UPS_PER_S - time.monotonic()))
        task = asyncio.create_task(once())
        running.add(task)
        task.add_done_callback(running.discard)


async def _pour(port: int, begin: bytes, filler: bytes) -> None:
    """Send filler until the gateway hangs up or 100 MB are sent, read nothing, and begin anew."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port, limit=1)
            writer.write(begin)
            for _ in range(100 * MEGABYTE // len(filler)):
                writer.write(filler)
                await asyncio.wait_for(writer.drain(), 5)
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def _hold(port: int, begin: bytes, then: bytes) -> None:
    """Hold ``CROWD`` connections that send ``begin``, and ``then`` each second; each is opened again when it ends."""

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port, limit=1)
                writer.write(begin)
                while not writer.transport.is_closing():
                    await asyncio.sleep(1)
                    writer.write(then)
                writer.transport.abort()
            await asyncio.sleep(0.2)

    await asyncio.gather(*(one() for _ in range(CROWD)))


async def _once(port: int, request: bytes) -> None:
    """Send a request and read what is answered."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request)
        await reader.read(4096)
        writer.transport.abort()


ATTACKS: dict[str, Callable[[int, str], Awaitable[None]]] = {
    "pipeline": pipeline,
    "headers": headers,
    "header": header,
    "url": url,
    "trailers": trailers,
    "bodies": bodies,
    "half-heads": half_heads,
    "trickle": trickle,
    "unread": unread,
    "hang-up": hang_up,
}


def main() -> None:
    """Attack until stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walls.attackers", description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("port", type=int)
    parser.add_argument("key", nargs="?", default="")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(ATTACKS[options.name](options.port, options.key))  # type: ignore[arg-type]  # all are coroutines


if __name__ == "__main__":
    main()
