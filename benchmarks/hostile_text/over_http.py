"""Ways in over HTTP: jobs, the endpoints of OpenAI, and files of the Batch API."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from benchmarks.gateway.http import Connection

from . import drawn
from .stage import ANSWER_S, Stage, Tally, chunks

AT_ONCE = 32
BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError, IndexError)
"""What a client sees when an answer does not come, or is not HTTP."""
FAIR_LINES, MIXED_LINES = 5000, 250
"""Lines of a file: of one whose lines are all right, and of one that is refused for most of its lines."""
ENDED = ("completed", "failed", "expired", "cancelled")


def jobs(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """POST to ``/v1/jobs``; the jobs that are accepted have to end."""
    for size in chunks(count, 5000):
        accepted: list[str] = []

        def took(status: int, body: bytes, accepted: list[str] = accepted) -> None:
            if status < 300:
                accepted.append(json.loads(body)["id"])
            else:
                tally.refused += 1

        asyncio.run(_post_all(stage.port, lambda: drawn.job(rng), size, tally, took))
        stage.fetch(accepted, tally)


def openai(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """POST to chat completions, completions and embeddings, in turns; most of them streamed in half of the cases."""

    def took(status: int, body: bytes) -> None:
        if status >= 300:
            tally.refused += 1
        elif body.startswith(b"data: ") and not body.endswith(b"data: [DONE]\n\n"):
            tally.lose(f"a stream ended with {body[-200:]!r}")
        else:
            tally.answered += 1

    asyncio.run(_post_all(stage.port, lambda: drawn.openai(rng), count, tally, took))


Took = Callable[[int, bytes], None]


async def _post_all(port: int, draw: Callable[[], tuple[str, bytes]], count: int, tally: Tally, took: Took) -> None:
    """Send requests on 32 connections, each kept for as long as the gateway keeps it."""
    left = iter(range(count))

    async def ask() -> None:
        connection = await Connection(port).__aenter__()
        for _ in left:
            path, body = draw()
            tally.sent += 1
            try:
                async with asyncio.timeout(ANSWER_S):
                    status, answer = await connection.answer(path, body)
            except BROKEN as error:
                tally.lose(f"{path} {body[:200]!r}: {type(error).__name__}: {error}")
                connection = await Connection(port).__aenter__()
                continue
            if status >= 500:
                tally.fail(f"{path} {body[:200]!r}: {status} {answer[:300]!r}")
            else:
                took(status, answer)
        await connection.__aexit__(None)

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


def batches(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """Upload files of lines, and make a Batch of each: half of the lines in files that are right, half in files that
    are refused for some of their lines."""
    sizes = [(size, True) for size in chunks(count // 2, FAIR_LINES)]
    sizes += [(size, False) for size in chunks(count - count // 2, MIXED_LINES)]
    asyncio.run(_run_all(stage, rng, sizes, tally))


async def _run_all(stage: Stage, rng: random.Random, sizes: list[tuple[int, bool]], tally: Tally) -> None:
    left = iter(sizes)

    async def run() -> None:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{stage.port}", timeout=ANSWER_S) as http:
            for size, fair in left:
                file = b"".join(drawn.line(rng, number, fair=fair) for number in range(size))
                tally.sent += size
                await _run(http, file, size, tally)

    await asyncio.gather(*(run() for _ in range(4)))


async def _run(http: httpx2.AsyncClient, file: bytes, lines: int, tally: Tally) -> None:
    """Run a file, and count what became of its lines."""
    batch = await _created(http, file, tally)
    if batch is None:
        tally.refused += lines
        return
    deadline = time.monotonic() + 5 * ANSWER_S
    while batch["status"] not in ENDED and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
    if batch["status"] == "failed":  # its mistakes are listed, and none of it has run
        tally.refused += lines
        return
    answered = len({name async for name in _answers(http, batch["output_file_id"])})
    refused = len({name async for name in _answers(http, batch["error_file_id"])})
    tally.answered += answered
    tally.refused += refused
    if left := lines - answered - refused:
        tally.lose(f"{left} lines of a batch that is {batch['status']}", left)


async def _created(http: httpx2.AsyncClient, file: bytes, tally: Tally) -> dict[str, Any] | None:
    """The batch of a file; None if file or batch were refused."""
    answer = await http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", file)})
    if answer.is_success:
        asked = {
            "input_file_id": answer.json()["id"],
            "endpoint": "/v1/jobs",
            "completion_window": "24h",
            "model": "echo",
        }
        answer = await http.post("/v1/batches", json=asked)
    if answer.status_code >= 500:
        tally.fail(f"a file or batch: {answer.status_code} {answer.text[:300]}")
    made: dict[str, Any] = answer.json()
    return made if answer.is_success else None


async def _answers(http: httpx2.AsyncClient, file_id: str | None) -> AsyncIterator[str]:
    """The ``custom_id`` of each line of a file of answers."""
    if file_id is None:
        return
    content = (await http.get(f"/v1/files/{file_id}/content")).content
    for line in content.split(b"\n"):
        if line:
            yield json.loads(line)["custom_id"]
