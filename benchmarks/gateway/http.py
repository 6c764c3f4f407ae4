"""A plain HTTP/1.1 client on one kept connection: a load generator must not cost more than what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class Told:
    """A streamed answer: its text, when each event came (seconds from the request), and the error, if one came."""

    text: str = ""
    times: list[float] = field(default_factory=list)
    error: str = ""


class Connection:
    """One connection to a gateway."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body of an answer that comes whole."""
        status, headers = await self._ask(path, body)
        return status, await self._reader.readexactly(int(headers["content-length"]))

    async def answer(self, path: str, content: bytes) -> tuple[int, bytes]:
        """Status and body of an answer to a body of any bytes, whether it comes whole or in events."""
        status, headers = await self._send(path, content)
        if "content-length" in headers:
            return status, await self._reader.readexactly(int(headers["content-length"]))
        chunks = []
        while size := int(await self._reader.readline(), 16):
            chunks.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readline()
        return status, b"".join(chunks)

    async def stream(self, path: str, body: Any) -> Told:
        """An answer in events, of completions."""
        told, began = Told(), time.perf_counter()
        status, headers = await self._ask(path, body)
        if status != 200:
            told.error = (await self._reader.readexactly(int(headers["content-length"]))).decode()
            return told
        while size := int(await self._reader.readline(), 16):
            chunk = (await self._reader.readexactly(size + 2))[:-2]
            for line in chunk.split(b"\n"):
                if not line.startswith(b"data: ") or line == b"data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    told.error = event["error"]["message"]
                else:
                    told.text += event["choices"][0]["text"]
                    told.times.append(time.perf_counter() - began)
        await self._reader.readline()
        return told

    async def _ask(self, path: str, body: Any) -> tuple[int, dict[str, str]]:
        return await self._send(path, json.dumps(body).encode())

    async def _send(self, path: str, content: bytes) -> tuple[int, dict[str, str]]:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        status = int((await self._reader.readline()).split()[1])
        headers = {}
        while line := (await self._reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers
