"""Streams whose first token takes its time, through gateways that are quiet and one that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.chaos.arena import Arena
from benchmarks.gateway.http import Connection
from deploy.machine.ports import free_port
from producer import AsyncClient

from .stage import Say, gateway, worker

FIRST_TOKEN_S = (2, 6, 40, 120)
QUIET_S = 31.0
"""Pause between a stream and the next: longer than a reader of streams waits for company before it leaves."""
PATIENCE_S = 60.0
PROMPT = "word"
TABLE = '[models.after-{0}]\nengine = "echo"\nmax_concurrency = 8\noptions = {{ task = "generate", delay_s = {0} }}\n'
TALK = '[models.talk]\nengine = "echo"\nmax_concurrency = 8\noptions = { task = "generate", delay_s = 0.01 }\n'


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Stream once quickly, pause, and stream from each slow model: alone on a gateway, and on one under load."""
    slow = FIRST_TOKEN_S[:2] if quick else FIRST_TOKEN_S
    tables = TALK + "".join(TABLE.format(seconds) for seconds in slow)
    with Arena(folder, lease_s=2, options="delay_s = 0", tables=tables) as arena:
        for model in ("talk", *(f"after-{seconds}" for seconds in slow)):
            worker(arena, model)
        quiet = {seconds: free_port() for seconds in slow}
        busy = free_port()
        for port in (*quiet.values(), busy):
            gateway(arena, port)
        failures = asyncio.run(_all(arena, quiet, busy))
    for text in failures:
        say(f"   {text}")
    say(f"   {3 * len(slow)} streams with first tokens after {', '.join(map(str, slow))} s: {len(failures)} failed")
    return [Bar("streams that fail while Redis is well", len(failures), 0)]


async def _all(arena: Arena, quiet: dict[int, int], busy: int) -> list[str]:
    """What went wrong with each stream that failed."""
    pause_s = 1.0 if len(quiet) < len(FIRST_TOKEN_S) else QUIET_S
    async with _load(busy), AsyncClient(arena.settings) as client:
        told = await asyncio.gather(
            *(_limited(_through_gateway(port, each, pause_s, "quiet"), each) for each, port in quiet.items()),
            *(_limited(_through_gateway(busy, each, pause_s, "busy"), each) for each in quiet),
            *(_limited(_through_client(client, each, pause_s), each) for each in quiet),
        )
    return [text for text in told if text]


async def _limited(stream: Coroutine[Any, Any, str], seconds: int) -> str:
    try:
        return await asyncio.wait_for(stream, QUIET_S + 2 * seconds + PATIENCE_S)  # what comes while it runs waits
    except TimeoutError:
        return f"a stream with a first token after {seconds} s has not ended {PATIENCE_S:g} s after it should have"


async def _through_gateway(port: int, seconds: int, pause_s: float, which: str) -> str:
    for model in ("talk", f"after-{seconds}"):
        async with Connection(port) as connection:
            told = await connection.stream("/v1/completions", _body(model))
        if told.error or told.text.strip() != PROMPT:
            return f"{which} gateway, first token after {seconds} s, model {model}: {told.error or told.text!r}"
        if model == "talk":
            await asyncio.sleep(pause_s)
    return ""


async def _through_client(client: AsyncClient, seconds: int, pause_s: float) -> str:
    await asyncio.sleep(pause_s)
    job = await client.submit(f"after-{seconds}", PROMPT, parameters={"max_new_tokens": 4})
    try:
        text = "".join([chunk.text async for chunk in client.stream(job)])
    except Exception as error:  # whatever it is, it is a stream that failed
        return f"AsyncClient, first token after {seconds} s: {error!r}"
    return "" if text.strip() == PROMPT else f"AsyncClient, first token after {seconds} s: {text!r}"


@asynccontextmanager
async def _load(port: int) -> AsyncIterator[None]:
    async def ask() -> None:
        async with Connection(port) as connection:
            while True:
                await connection.stream("/v1/completions", _body("talk"))

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def _body(model: str) -> dict[str, object]:
    return {"model": model, "prompt": PROMPT, "stream": True, "max_tokens": 4}
