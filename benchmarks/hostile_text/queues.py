"""Ways into a queue without HTTP: both clients, a stock Celery application, and messages pushed by hand."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.exceptions import EncodeError

from benchmarks.chaos import fuzz
from benchmarks.chaos.arena import MODEL
from producer import AsyncClient
from producer.contract.errors import StokerError
from producer.contract.message import celery_message
from producer.contract.message.job import TASK, Status
from producer.contract.message.message_body import NotAJob
from scheduler import message

from . import drawn
from .stage import ANSWER_S, QUEUE, Stage, Tally, chunks

FIELDS = ("parameters", "metadata", "tenant", "idempotency_key", "tier", "deadline", "admission")
AT_ONCE = 64


def client(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """Submit with ``Client``, and fetch the results."""
    for size in chunks(count):
        submitted: list[str] = []
        for _ in range(size):
            tally.sent += 1
            arguments, further = _asked(rng)
            try:
                submitted.append(stage.arena.client.submit(*arguments, **further))
            except StokerError:
                tally.refused += 1
            except Exception as error:
                tally.lose(f"submit raised {type(error).__name__}: {error}")
        stage.fetch(submitted, tally)


def _asked(rng: random.Random) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """Arguments of ``submit``."""
    value = drawn.value(rng)
    wrapped = rng.choice((lambda: value, lambda: [value], lambda: ["x", value], lambda: {"a": value}))()
    further = {rng.choice(FIELDS): drawn.value(rng)} if rng.random() < 0.1 else {}
    return (MODEL, wrapped), further


def async_client(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """The same with ``AsyncClient``, 64 at a time."""
    asyncio.run(_ask_all(stage, rng, count, tally))


async def _ask_all(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    left = iter(range(count))

    async def ask(client: AsyncClient) -> None:
        for _ in left:
            tally.sent += 1
            arguments, further = _asked(rng)
            try:
                job_id = await client.submit(*arguments, **further)
                await client.result(job_id, timeout=ANSWER_S)
                tally.answered += 1
            except TimeoutError as error:
                tally.lose(str(error))
            except StokerError:
                tally.refused += 1
            except Exception as error:
                tally.lose(f"submit raised {type(error).__name__}: {error}")

    async with AsyncClient(stage.arena.settings) as client:
        await asyncio.gather(*(ask(client) for _ in range(AT_ONCE)))


def celery(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """Send with ``send_task`` of an application that knows nothing of Stoker."""
    url = stage.arena.server.url
    with (
        Celery(broker=url, backend=url, set_as_current=False) as app,
        app.connection_for_write() as connection,
        app.amqp.Producer(connection) as producer,
    ):
        for size in chunks(count):
            sent: list[str] = []
            for _ in range(size):
                tally.sent += 1
                job_id = f"{rng.getrandbits(128):032x}"
                try:
                    app.send_task(TASK, task_id=job_id, producer=producer, queue=QUEUE, **_options(rng))
                    sent.append(job_id)
                except (EncodeError, TypeError, ValueError, RecursionError):  # Celery's own refusals
                    tally.refused += 1
            _count_ends(stage, [End(job_id) for job_id in sent], tally)


def _options(rng: random.Random) -> dict[str, Any]:
    """Arguments of ``send_task`` besides the task and its queue."""
    fields: dict[Any, Any] = {"input": drawn.value(rng)}
    if rng.random() < 0.2:
        fields[rng.choice((*fuzz.FIELDS, "x"))] = drawn.value(rng)
    options: dict[str, Any] = {"kwargs": fields, "ignore_result": False}
    if rng.random() < 0.2:
        options |= rng.choice(
            (
                {"args": (drawn.value(rng),)},
                {"countdown": 5},
                {"time_limit": 5},
                {"serializer": "pickle"},
                {"serializer": "yaml"},
                {"compression": "zlib"},
                {"headers": {"x": drawn.value(rng)}},
                {"shadow": "\u202e"},
            )
        )
    return options


def raw(stage: Stage, rng: random.Random, count: int, tally: Tally) -> None:
    """Push messages onto a queue: every kind of malformed message, and bodies of hostile text."""
    for size in chunks(count):
        bad = fuzz.hostile(rng, size // 2, QUEUE, stage.canary)
        messages = [drawn.message(rng, QUEUE) for _ in range(size - len(bad))]
        messages += [(each.job_id, drawn.damaged(rng, each.message)) for each in bad]
        rng.shuffle(messages)
        tally.sent += size
        with stage.arena.redis.pipeline(transaction=False) as pipe:
            for _, pushed in messages:
                pipe.lpush(QUEUE, pushed)
            pipe.execute()
        _count_ends(stage, [_end(pushed) for _, pushed in messages], tally)


@dataclass(frozen=True, slots=True)
class End:
    """Where the end of a message is found: in the result of its job, or among the dead letters."""

    job_id: str
    pushed: bytes = b""
    unseen: bool = False
    """Whether it is a job that wants no result, whose end leaves nothing."""


def _end(pushed: bytes) -> End:
    try:
        read = message.read(pushed)
    except NotAJob:
        return End("", pushed)
    return End(read.id, pushed, unseen=not read.wants_result)


def _count_ends(stage: Stage, ends: list[End], tally: Tally) -> None:
    """Wait until nothing is left of the messages, and count what became of each."""
    settled = stage.settle()
    dead, final = stage.dead(), stage.final({end.job_id for end in ends} - {""})
    for end in ends:
        if end.pushed in dead:
            tally.refused += 1
        elif end.job_id in final:
            succeeded = celery_message.status(final[end.job_id]) is Status.SUCCEEDED
            tally.answered += succeeded
            tally.refused += not succeeded
        elif end.unseen and settled:
            tally.answered += 1
        else:
            tally.lose(f"no end of {end.job_id or end.pushed!r}")
    stage.arena.client.forget(final)
