"""A gateway beside the direct client: requests per second, added latency, streams; then 500 streams at the same time.

python -m benchmarks.gateway [--rounds 5] [--requests 600] [--at-once 32] [--streams 500] [--words 40] [--token-s 0.1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import redis
from rich.console import Console

from benchmarks.bars import Bar, percentile
from producer import AsyncClient

from .fleet import Fleet, fleet
from .http import Connection, Told

PROMPT = "one two three four five six seven eight"
COMPLETIONS = "/v1/completions"

say = Console(stderr=True, highlight=False).print


def asked(model: str = "talk", prompt: str = PROMPT, stream: bool = False) -> dict[str, Any]:
    """A request to the gateway."""
    return {"model": model, "prompt": prompt, "max_tokens": 1000, "stream": stream}


async def direct(client: AsyncClient) -> None:
    """The same, without a gateway."""
    job = await client.submit("talk", PROMPT, parameters={"max_new_tokens": 1000})
    await client.result(job, timeout=60)


async def through(connection: Connection) -> None:
    """One request through the gateway."""
    status, body = await connection.post(COMPLETIONS, asked())
    assert status == 200, body


async def direct_stream(client: AsyncClient) -> float:
    """Seconds to the first piece, without a gateway."""
    began, first = time.perf_counter(), 0.0
    job = await client.submit("talk", PROMPT, parameters={"max_new_tokens": 1000}, stream=True)
    async for _ in client.stream(job, timeout=60):
        first = first or time.perf_counter() - began
    return first


async def rate(askers: list[Callable[[], Awaitable[None]]], requests: int) -> float:
    """Requests per second, of that many askers at the same time."""
    left = iter(range(requests))

    async def ask(one: Callable[[], Awaitable[None]]) -> None:
        for _ in left:
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(ask(one) for one in askers))
    return requests / (time.perf_counter() - began)


async def compare(on: Fleet, rounds: int, requests: int, at_once: int) -> dict[str, float]:
    """Both ways in turns, so that whatever else the machine does is done to both."""
    rates: dict[str, list[float]] = {"gateway": [], "direct": []}
    waits: dict[str, list[float]] = {"gateway": [], "direct": []}
    firsts: dict[str, list[float]] = {"gateway": [], "direct": []}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(on.settings))
        connections = [await stack.enter_async_context(Connection(on.port)) for _ in range(at_once)]
        by_gateway: list[Callable[[], Awaitable[None]]] = [partial(through, connection) for connection in connections]
        by_client: list[Callable[[], Awaitable[None]]] = [partial(direct, client)] * at_once
        await rate(by_gateway, at_once)
        await rate(by_client, at_once)
        for _ in range(rounds):
            rates["gateway"].append(await rate(by_gateway, requests))
            rates["direct"].append(await rate(by_client, requests))
            for _ in range(requests // 4):
                for name, one in (("gateway", by_gateway[0]), ("direct", by_client[0])):
                    began = time.perf_counter()
                    await one()
                    waits[name].append(time.perf_counter() - began)
                told = await connections[0].stream(COMPLETIONS, asked(stream=True))
                assert not told.error, told.error
                firsts["gateway"].append(told.times[0])
                firsts["direct"].append(await direct_stream(client))
            say(f"  {rates['gateway'][-1]:,.0f} requests/s through the gateway, {rates['direct'][-1]:,.0f}/s directly")
    figures = {f"{name}_requests_per_s": round(statistics.median(found), 1) for name, found in rates.items()}
    for kind, found in (("latency", waits), ("first_piece", firsts)):
        for share in (0.5, 0.99):
            both = {name: 1000 * (percentile(times, share) or 0.0) for name, times in found.items()}
            figures |= {f"{name}_{kind}_p{share * 100:g}_ms": round(ms, 2) for name, ms in both.items()}
            figures[f"added_{kind}_p{share * 100:g}_ms"] = round(both["gateway"] - both["direct"], 2)
    return figures


async def many_streams(on: Fleet, streams: int, words: int) -> tuple[dict[str, float], list[str]]:
    """Open all at the same time and read each to its end. Figures, and what went wrong."""
    prompts = [" ".join(f"s{number}w{word}" for word in range(words)) for number in range(streams)]

    async def one(prompt: str) -> Told:
        async with Connection(on.port) as connection:
            return await connection.stream(COMPLETIONS, asked("stream", prompt, stream=True))

    cpu = sum(on.gateway.cpu_times()[:2])
    began = time.perf_counter()
    reading = asyncio.gather(*(one(prompt) for prompt in prompts), return_exceptions=True)
    await asyncio.sleep(2)
    with redis.Redis.from_url(on.url) as client:
        connections = client.info("clients")["connected_clients"]
    found = await reading
    took = time.perf_counter() - began
    wrong = [
        f"{type(told).__name__}: {told}" if isinstance(told, BaseException) else told.error or "another text"
        for told, prompt in zip(found, prompts, strict=True)
        if isinstance(told, BaseException) or told.error or told.text != prompt
    ]
    whole = [told for told in found if isinstance(told, Told) and told.times]
    gaps = [b - a for told in whole for a, b in zip(told.times, told.times[1:], strict=False)]
    figures = {
        "streams": streams,
        "words_per_s": round(streams * words / took),
        "events_per_s": round(sum(len(told.times) for told in whole) / took),
        "first_word_p99_s": round(percentile([told.times[0] for told in whole], 0.99) or 0.0, 3),
        "gap_p50_s": round(percentile(gaps, 0.5) or 0.0, 4),
        "gap_p99_s": round(percentile(gaps, 0.99) or 0.0, 4),
        "gateway_cpu_share": round((sum(on.gateway.cpu_times()[:2]) - cpu) / took, 3),
        "gateway_rss_mb": round(on.gateway.memory_info().rss / 1e6, 1),
        "redis_connections": connections,
    }
    return figures, wrong


def main() -> None:
    """Measure, and print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600, help="in each round, each way")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--words", type=int, default=40, help="of each stream")
    parser.add_argument("--token-s", type=float, default=0.1, help="seconds between two words of a stream")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fleet(Path(folder), options.token_s) as on:
        say("gateway and direct client, in turns")
        figures = asyncio.run(compare(on, options.rounds, options.requests, options.at_once))
        say(f"{options.streams} streams at the same time, a word every {options.token_s:g} s in each")
        streams, wrong = asyncio.run(many_streams(on, options.streams, options.words))
    for error in wrong[:5]:
        say(f"  {error}")
    for name, value in {**figures, **streams}.items():
        say(f"  {name:32} {value:>10,}")
    bars = [
        Bar("streams at the same time", options.streams, 500, "higher"),
        Bar("streams that did not come whole", len(wrong), 0),
    ]
    print(json.dumps({"figures": figures, "streams": streams, "bars": [bar.line() for bar in bars]}))


if __name__ == "__main__":
    main()
