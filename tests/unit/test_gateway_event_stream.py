"""What a stream tells while nothing has been made yet, to the official client."""

import asyncio
import json
from collections.abc import AsyncGenerator

import httpx2
import openai
import pytest
from fastapi import FastAPI, Request, Response
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.http import event_stream
from gateway.http.event_stream import EventStream

CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
}


@pytest.mark.parametrize("error", [None, RedisConnectionError("away")], ids=["", "without Redis"])
def test_a_client_is_told_what_it_waits_for_by_comments_that_the_official_client_skips(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_S", 0.01)
    app, asked = FastAPI(), asyncio.Event()

    async def told() -> str:
        asked.set()
        if error is not None:
            raise error
        return "waiting: m is loading, about 40 s more"

    async def events() -> AsyncGenerator[bytes]:
        await asked.wait()
        yield f"data: {json.dumps(CHUNK)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    @app.post("/v1/chat/completions")
    async def stream(request: Request) -> Response:
        await request.body()
        return await EventStream(events(), lambda _: b"", {}, told=told).begin(request)

    async def ask() -> tuple[str, list[str | None]]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
            raw = (await http.post("/v1/chat/completions", json={})).text
            client = openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="any", http_client=http)
            asked.clear()
            chunks = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            return raw, [chunk.choices[0].delta.content async for chunk in chunks]

    raw, texts = asyncio.run(ask())
    assert raw.startswith(": waiting\n\n" if error else ": waiting: m is loading, about 40 s more\n\n")
    assert texts == ["hi"]
