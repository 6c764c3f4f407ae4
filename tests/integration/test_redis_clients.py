"""Waiting for Redis, whatever redis-py takes for the longest wait; ``make test-redis-clients`` runs it with several.

Waits are scaled down: a socket timeout of 0.2 s stands for redis-py's 5 s, an outage of 0.5 s for one of 30 s, and a
first token after 1.5 s for one after 40 s.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis as redis_py
import redis.asyncio
import redis.connection

from deploy.machine.server import Server
from processes import wait_for
from producer import AsyncClient, BrokerUnavailable, Client, Settings
from producer.contract import keys
from producer.contract.server.connection import block_ms, close, connect, connect_async
from producer.multiplex import Multiplex
from producer.outage import Outage
from producer.stream import Entry

LATE_S = 3.0
IMPATIENT_S = 1.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-py that by default waits for no answer longer than ``IMPATIENT_S``."""
    for kind in (redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection):
        original = kind.__init__

        def impatient(self: Any, *args: Any, _original: Callable[..., None] = original, **options: Any) -> None:
            options.setdefault("socket_timeout", IMPATIENT_S)
            _original(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", impatient)
    monkeypatch.setattr("producer.outage.OUTAGE_S", 0.5)


@pytest.fixture(params=["", "?socket_timeout=1"], ids=["default", "url"])
def settings(server: Server, request: pytest.FixtureRequest) -> Settings:
    return Settings(redis={"url": server.url + request.param}, models={"m": {"engine": "echo"}})


class Worker:
    """Writes streams and results as a worker does."""

    def __init__(self, redis: redis_py.Redis) -> None:
        self._redis = redis

    def write(self, job_id: str, at: int, text: str) -> None:
        self._redis.xadd(keys.stream(job_id), {"index": 0, "at": at, "text": text, "tokens": 1})

    def finish(self, job_id: str, text: str) -> None:
        stored = json.dumps({"status": "SUCCESS", "result": {"output": {"text": text}}, "task_id": job_id})
        self._redis.set(keys.result(job_id), stored)
        self._redis.publish(keys.result(job_id), stored)


@pytest.fixture
def worker(redis: redis_py.Redis) -> Worker:
    return Worker(redis)


@pytest.fixture
def later(worker: Worker) -> Iterator[Callable[..., None]]:
    """Answer a job once ``LATE_S`` have passed."""
    timers = []

    def answer(job_id: str, text: str, streams: bool) -> None:
        def act() -> None:
            if streams:
                worker.write(job_id, 0, text)
            worker.finish(job_id, text)

        timers.append(threading.Timer(LATE_S, act))
        timers[-1].start()

    yield answer
    for timer in timers:
        timer.join()


async def read(client: AsyncClient, job_id: str) -> str:
    return "".join([piece.text async for piece in client.stream(job_id)])


@asynccontextmanager
async def busy(client: AsyncClient, worker: Worker) -> AsyncIterator[None]:
    """Others read streams meanwhile, in which something comes all the time."""

    async def make() -> None:
        at = 0
        while True:
            await asyncio.to_thread(worker.write, "others", at, "x")
            at += 1
            await asyncio.sleep(0.02)

    making, reading = asyncio.create_task(make()), asyncio.create_task(read(client, "others"))
    yield
    for task in (making, reading):
        task.cancel()
    await asyncio.gather(making, reading, return_exceptions=True)


@pytest.mark.slow
def test_a_late_first_token_on_a_quiet_connection_is_streamed(
    settings: Settings, later: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[str]:
        async with AsyncClient(settings) as client:
            later("first", "one", True)
            first = await read(client, "first")
            later("second", "two", True)  # nothing was read in between
            return [first, await read(client, "second")]

    assert asyncio.run(main()) == ["one", "two"]
    assert not caplog.records


def test_a_late_first_token_on_a_busy_connection_is_streamed(
    settings: Settings, worker: Worker, later: Callable[..., None]
) -> None:
    async def main() -> str:
        async with AsyncClient(settings) as client, busy(client, worker):
            later("late", "one", True)
            return await read(client, "late")

    assert asyncio.run(main()) == "one"


@pytest.mark.slow
def test_a_late_result_is_heard_of(
    settings: Settings, later: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Any:
        async with AsyncClient(settings) as client:
            later("awaited", "one", False)
            return (await client.result("awaited", timeout=60)).output

    assert asyncio.run(main()) == {"text": "one"}
    with Client(settings) as client:
        later("collected", "two", False)
        assert client.result("collected", timeout=60).output == {"text": "two"}
        later("streamed", "three", True)
        assert "".join(piece.text for piece in client.stream("streamed")) == "three"
    assert not caplog.records


def test_a_command_blocks_for_half_of_the_socket_timeout_at_most(settings: Settings) -> None:
    client = connect(settings)
    timeout_s = client.connection_pool.connection_kwargs["socket_timeout"]
    assert block_ms(client, 3600) == int(500 * timeout_s)
    assert block_ms(client, 0.1) == 100
    assert block_ms(client, 0.0) == 1  # 0 is for ever
    assert block_ms(connect_async(settings), 3600) == int(500 * timeout_s)
    patient = connect(settings, socket_timeout=None)
    if "socket_timeout" not in settings.redis_url:
        assert block_ms(patient, 3600) == 3_600_000
    close(client)
    close(patient)


class FlakyRedis:
    """Fails once for each reader, and then answers, as after a connection that broke between two reads."""

    def __init__(self) -> None:
        self.connection_pool = redis.asyncio.ConnectionPool(socket_timeout=10)
        self.failures = 1
        self.reads = 0

    async def xread(self, places: dict[str, str], *_: Any) -> list[tuple[bytes, list[Entry]]]:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise redis.exceptions.ConnectionError("broke")
        return [(place.encode(), [(b"1-0", {})]) for place in places if "bell" not in place]


def test_an_outage_that_the_last_reader_left_is_not_the_next_readers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("producer.outage.OUTAGE_S", 0.0)  # the second failure of an outage is too much

    async def main() -> list[Entry]:
        flaky = FlakyRedis()
        multiplex = Multiplex(flaky, Settings(redis={"url": "redis://h:1"}))  # type: ignore[arg-type]  # what it reads
        leaving = asyncio.create_task(multiplex.entries("a", "0-0"))
        while not flaky.reads:
            await asyncio.sleep(0)
        leaving.cancel()
        while multiplex._wanted.is_set():
            await asyncio.sleep(0.01)
        flaky.failures = 1
        found = await multiplex.entries("b", "0-0")
        await multiplex.aclose()
        return found

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [(b"1-0", {})]
    assert "reading streams: Redis at redis://h:1" in caplog.text
    assert "does not answer (broke)" in caplog.text
    assert "answers again" in caplog.text


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    own_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(redis={"url": own_server.url}, models={"m": {"engine": "echo"}})
    monkeypatch.setattr("producer.outage.OUTAGE_S", 60.0)

    async def main() -> None:
        async with AsyncClient(settings) as client:
            reading = asyncio.create_task(read(client, "j"))
            await asyncio.to_thread(own_server.stop)
            await asyncio.to_thread(wait_for, lambda: "does not answer" in caplog.text, "the outage in the log")
            await asyncio.to_thread(own_server.start)
            await asyncio.to_thread(wait_for, lambda: "answers again" in caplog.text, "its end in the log")
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(main())


def test_an_outage_that_lasts_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.outage.OUTAGE_S", 0.0)
    outage = Outage(Settings(redis={"url": "redis://h:1"}), "reading")
    assert outage.ride_out(redis.exceptions.ConnectionError("gone")) > 0
    with pytest.raises(BrokerUnavailable, match=r"redis://h:1.*gone"):
        outage.ride_out(redis.exceptions.ConnectionError("gone"))
