"""A server behind the ``openai`` engine that misbehaves: right answers, or errors, and a worker that goes on."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.bars import Bar
from benchmarks.chaos.arena import Arena
from benchmarks.gateway.http import Connection
from deploy.machine.ports import free_port

from .stage import STUB, Say, gateway, worker

TOKENS = 6
WORDS = "".join(f" w{n}" for n in range(TOKENS))
RIGHT: dict[str, str | None] = {
    "plain": WORDS,
    "!status 503 2": WORDS,
    "!status 500 99": None,
    "!status 429 2": WORDS,
    "!quota": None,
    "!code": None,
    "!surrogate": None,
    "!cut": None,
    "!end": None,
    "!garbage": None,
    "!error 400": None,
    "!error 500": None,
    "!abort": None,
    "!wide": "\u2028" * TOKENS,
    "!parts": WORDS,
    "!azure": WORDS,
    "!halves": "\N{GRINNING FACE}" * TOKENS,
    "!bytes": "\N{GRINNING FACE}" * TOKENS,
    "!reasoning": WORDS,
    "!whole": WORDS,
}
"""The text that is right by prompt; None where only an error is. An error is never wrong."""
NONSENSE = (
    "null", "[]", "7", '"text"', "{}", '{"choices": 7}', '{"choices": [null]}', '{"choices": [{"index": "x"}]}',
    '{"choices": [{"index": 9, "delta": {"content": "x"}, "text": "x"}]}', '{"usage": "many", "choices": []}',
    '{"choices": [{"index": 0, "delta": {"content": {}}, "text": {}}]}', '{"choices": [{"index": 0, "delta": 5}]}',
    '{"error": null, "choices": []}', '{"error": {"message": []}}', '{"choices": [{"index": 0, "finish_reason": 5}]}',
    '{"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1e99}}', "[[[[[[[[]]]]]]]]",
)  # fmt: skip
"""Events that are no OpenAI server's, sent in the middle of a stream."""
PLAIN = 2
"""Requests that the server answers well after each misdeed: so many that the breaker does not open, which would have
each misdeed wait, and is tried elsewhere (``spread``)."""
AT_ONCE = 4
"""Prompts that are asked at once: many are tried again after a pause."""
TABLE = """
[models.served]
engine = "openai"
max_concurrency = 8
limits = {{ max_retries = 0 }}
options = {{ model = "stub", command = ["{python}", "{stub}", "--port", "{{port}}"] }}
"""


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Ask for each misdeed, streamed and whole, as a chat and as a completion."""
    prompts = {**RIGHT, **{f"!raw {event}": WORDS for event in (NONSENSE[:3] if quick else NONSENSE)}}
    tables = TABLE.format(python=sys.executable, stub=STUB)
    port = free_port()
    with Arena(folder, lease_s=2, options="delay_s = 0", tables=tables) as arena:
        process = worker(arena, "served")
        gateway(arena, port)
        wrong, answered, refused = asyncio.run(_ask_all(prompts, port))
        ended = int(process.poll() is not None)
    for text in wrong:
        say(f"   WRONG: {text}")
    say(f"   {answered} right answers, {refused} errors, {len(wrong)} wrong answers, {ended} workers ended")
    return [
        Bar("wrong answers told as success", len(wrong), 0),
        Bar("workers ended by a server's answer", ended, 0),
    ]


async def _ask_all(prompts: dict[str, str | None], port: int) -> tuple[list[str], int, int]:
    """What was wrong; how many answers were right; how many were errors."""
    wrong: list[str] = []
    answered = refused = 0
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(prompt: str) -> list[str | None]:
        async with places:
            texts = []
            for way in (_streamed, _whole, _chat):
                texts.append(await way(port, prompt))
                for _ in range(PLAIN):
                    if await _whole(port, "plain") != WORDS:
                        wrong.append(f"plain, after {prompt}")
            return texts

    answers = await asyncio.gather(*map(ask, prompts))
    for (prompt, right), texts in zip(prompts.items(), answers, strict=True):
        for way, text in zip(("streamed", "whole", "chat"), texts, strict=True):
            if text is None:
                refused += 1
            elif right is not None and text.strip(" ") == right.strip(" "):
                answered += 1
            else:
                wrong.append(f"{prompt}, {way}: {text!r}")
    return wrong, answered, refused


async def _streamed(port: int, prompt: str) -> str | None:
    async with Connection(port) as connection:
        told = await connection.stream("/v1/completions", {**_limits(), "prompt": prompt, "stream": True})
    return None if told.error else told.text


async def _whole(port: int, prompt: str) -> str | None:
    answer = await asyncio.to_thread(_post, port, "/v1/completions", {**_limits(), "prompt": prompt})
    return None if answer is None else str(answer["choices"][0]["text"])


async def _chat(port: int, prompt: str) -> str | None:
    messages = [{"role": "user", "content": prompt}]
    answer = await asyncio.to_thread(_post, port, "/v1/chat/completions", {**_limits(), "messages": messages})
    return None if answer is None else str(answer["choices"][0]["message"]["content"])


def _limits() -> dict[str, object]:
    return {"model": "served", "max_tokens": TOKENS}


def _post(port: int, path: str, body: object) -> dict[str, list[dict[str, dict[str, str]]]] | None:
    """The answer; None if it was an error."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310  our own address
            found: dict[str, list[dict[str, dict[str, str]]]] = json.load(answer)
            return found
    except urllib.error.HTTPError:
        return None
