"""A worker's streams and their readers, against a real server: everything but the engine and the pool."""

import asyncio
import base64
import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import wait_for
from producer import AsyncClient, Client, JobCancelled, JobFailed, Piece, ResultTimeout, Settings
from producer.contract import keys
from producer.stream import AT_ONCE, LOOK_S
from redis_replies import entries
from scheduler.lease.queue import Queue
from workers import streaming
from workers.engines.protocol import OutputPiece as Made
from workers.streaming import Streams

MODEL = "m"


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(redis={"url": server.url}, models={MODEL: {"engine": "echo"}})


@pytest.fixture
def client(redis: redis_py.Redis, settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


class Job:
    """A streaming job in a worker's hands: what the pool does with it, by hand."""

    def __init__(self, redis: redis_py.Redis, settings: Settings, client: Client) -> None:
        self.redis = redis
        self.queue = Queue(redis, settings, MODEL)
        self.streams = Streams(self.queue, settings.redis.result_ttl_s)
        self.id = client.submit(MODEL, "the input", stream=True)
        self.take()

    def take(self) -> None:
        [claimed] = self.queue.claim(1, f"worker.{next(NUMBERS)}")
        self.lease = claimed.lease

    def make(self, text: str, index: int = 0, tokens: int = 1) -> None:
        self.streams.add(self.id, Made(self.lease, index, text, tokens))

    def write(self, *texts: str) -> None:
        for text in texts:
            self.make(text)
            self.streams.flush()

    def lose(self) -> None:
        """The worker dies: its lease runs out, and the job is another's."""
        self.queue.expire([self.lease])
        self.streams = Streams(self.queue, 60)
        self.take()

    def finish(self, text: str) -> None:
        self.streams.end(self.lease)
        self.streams.flush()
        self.store("SUCCESS", {"output": {"text": text}})

    def store(self, status: str, result: object) -> None:
        stored = json.dumps({"status": status, "result": result, "task_id": self.id})
        assert self.queue.finish([(self.lease, self.id, stored.encode())]) == []

    def entries(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in entries(self.redis, keys.stream(self.id))]


NUMBERS = itertools.count()


@pytest.fixture
def job(redis: redis_py.Redis, settings: Settings, client: Client) -> Job:
    return Job(redis, settings, client)


def texts(pieces: Iterable[Piece]) -> list[str]:
    return [piece.text for piece in pieces]


class Reader:
    """Reads a stream from a thread of its own."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self.pieces: list[Piece] = []
        self.error: Exception | None = None
        self._source = pieces
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for piece in self._source:
                self.pieces.append(piece)
        except Exception as error:
            self.error = error

    def has(self, *expected: str) -> None:
        wait_for(lambda: texts(self.pieces) == list(expected), f"{expected}, having {self.pieces}")

    def ends(self) -> list[str]:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return texts(self.pieces)


def test_pieces_are_read_as_they_are_made(job: Job, client: Client) -> None:
    reader = Reader(client.stream(job.id))
    job.write("one ")
    reader.has("one ")
    job.write("two")
    reader.has("one ", "two")
    job.finish("one two")
    assert reader.ends() == ["one ", "two"]
    assert [piece.tokens for piece in reader.pieces] == [1, 1]


def test_the_end_is_heard_of_at_once(job: Job, client: Client) -> None:
    """Not after the second for which a reader waits for more."""
    waits = []
    for _ in range(3):
        reader = Reader(client.stream(job.id))
        job.write("one")
        reader.has("one")
        begun = time.monotonic()
        job.finish("one")
        reader.ends()
        waits.append(time.monotonic() - begun)
        job = Job(job.redis, client.settings, client)
    assert min(waits) < LOOK_S / 2


def test_one_goes_on_after_any_piece_while_it_runs_and_when_it_has_ended(job: Job, client: Client) -> None:
    job.write("one ", "two ")
    begun = list(itertools.islice(client.stream(job.id), 2))
    reader = Reader(client.stream(job.id, after=begun[0].id))
    reader.has("two ")
    job.write("three")
    job.finish("one two three")
    assert reader.ends() == ["two ", "three"]
    assert texts(client.stream(job.id, after=begun[1].id)) == ["three"]
    assert texts(client.stream(job.id)) == ["one ", "two ", "three"]
    last = reader.pieces[-1].id
    assert texts(client.stream(job.id, after=last)) == []
    job.redis.delete(keys.stream(job.id))  # as when it has expired: the result still tells it
    assert texts(client.stream(job.id)) == ["one two three"]


def test_asyncio_reads_the_same(job: Job, client: Client, settings: Settings) -> None:
    job.write("one ", "two")
    job.finish("one two")

    async def read() -> list[Piece]:
        async with AsyncClient(settings) as each:
            return [piece async for piece in each.stream(job.id)]

    found = asyncio.run(read())
    assert texts(found) == ["one ", "two"]
    assert found == list(client.stream(job.id))


def test_asyncio_streams_what_it_submitted_and_hears_of_failure(redis: redis_py.Redis, settings: Settings) -> None:
    async def read() -> list[str]:
        found = []
        async with AsyncClient(settings) as client:
            with pytest.raises(ResultTimeout, match=r"made nothing for 0\.05 s"):
                await anext(client.stream("nobody's", timeout=0.05))
            job_id = await client.submit(MODEL, "x", stream=True)
            [claimed] = queue.claim(1, "a")
            assert b'"stream": true' in base64.b64decode(json.loads(claimed.message)["body"])
            streams.add(job_id, Made(claimed.lease, 0, "begun"))
            streams.flush()
            pieces = client.stream(job_id)
            found.append((await anext(pieces)).text)
            failure = {"exc_type": "EngineError", "exc_message": ["the device is gone"]}
            stored = json.dumps({"status": "FAILURE", "result": failure, "task_id": job_id})
            queue.finish([(claimed.lease, job_id, stored.encode())])
            with pytest.raises(JobFailed, match="the device is gone"):
                await anext(pieces)
        return found

    queue = Queue(redis, settings, MODEL)
    streams = Streams(queue, 60)
    assert asyncio.run(read()) == ["begun"]


def test_a_job_that_fails_raises_after_what_it_made(job: Job, client: Client) -> None:
    job.write("one")
    job.store("FAILURE", {"exc_type": "EngineError", "exc_message": ["the device is gone"]})
    reader = Reader(client.stream(job.id))
    with pytest.raises(JobFailed, match="the device is gone"):
        reader.ends()
    assert texts(reader.pieces) == ["one"]


def test_a_cancelled_job_raises(job: Job, client: Client) -> None:
    job.write("one")
    reader = Reader(client.stream(job.id))
    reader.has("one")
    client.cancel(job.id)
    with pytest.raises(JobCancelled):
        reader.ends()


def test_a_job_that_streams_nothing_comes_whole_when_it_ends(job: Job, client: Client) -> None:
    reader = Reader(client.stream(job.id))
    job.finish("one two")
    assert reader.ends() == ["one two"]
    assert job.entries() == []


def test_no_piece_in_time_is_an_error_and_one_may_ask_again(job: Job, client: Client) -> None:
    job.write("one")
    pieces = client.stream(job.id, timeout=0.05)
    first = next(pieces)
    with pytest.raises(ResultTimeout, match=r"made nothing for 0\.05 s"):
        next(pieces)
    job.finish("one two")
    assert texts(client.stream(job.id, after=first.id, timeout=5)) == [" two"]


def test_a_job_that_runs_again_with_the_same_text_is_told_once(job: Job, client: Client) -> None:
    reader = Reader(client.stream(job.id))
    job.write("one ", "two ")
    reader.has("one ", "two ")
    job.lose()
    job.write("one ", "two", " three")
    reader.has("one ", "two ", "three")
    job.finish("one two three")
    assert reader.ends() == ["one ", "two ", "three"]


def test_a_job_that_runs_again_with_another_text_says_from_where(job: Job, client: Client) -> None:
    reader = Reader(client.stream(job.id))
    job.write("a cold ", "day")
    reader.has("a cold ", "day")
    job.lose()
    job.write("a cold ", "night")
    job.finish("a cold night")
    assert reader.ends() == ["a cold ", "day", "night"]
    assert [piece.at for piece in reader.pieces] == [0, 7, 7]


def test_who_lost_the_lease_writes_nothing(job: Job, client: Client) -> None:
    job.write("one ")
    late, lease = job.streams, job.lease
    job.lose()
    job.write("un ")
    late.add(job.id, Made(lease, 0, "two "))
    late.end(lease)
    late.flush()
    job.write("deux")
    assert [fields.get(b"text") for fields in job.entries()] == [b"one ", b"un ", b"deux"]


def test_what_comes_together_goes_together(job: Job, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write for all jobs, and one entry for all that an output made since the last."""
    other = Job(job.redis, client.settings, client)
    other.streams = job.streams
    writes = []
    script = job.streams._write

    def write(names: list[str], arguments: list[str | bytes]) -> object:
        writes.append((names, arguments))
        return script(names, arguments)

    monkeypatch.setattr(job.streams, "_write", write)
    for number in range(50):
        job.make(f"{number} ")
        job.make(f"{-number} ", index=1)
        other.make(f"{number} ")
    job.streams.flush()
    job.streams.flush()
    assert len(writes) == 1
    assert [(fields[b"index"], fields[b"at"], fields[b"tokens"]) for fields in job.entries()] == [
        (b"0", b"0", b"50"),
        (b"1", b"0", b"50"),
    ]
    assert len(other.entries()) == 1


def test_a_redis_that_takes_nothing_loses_nothing(
    job: Job, client: Client, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "REFUSED_S", 0.0)
    job.write("one ")
    memory = redis.config_get("maxmemory")["maxmemory"]
    assert memory is not None
    redis.config_set("maxmemory", 1)
    try:
        job.write("two ", "three ")
    finally:
        redis.config_set("maxmemory", memory)
    assert len(job.entries()) == 1
    job.write("four")
    assert [fields[b"text"] for fields in job.entries()] == [b"one ", b"two three four"]
    assert list(job.streams._streams) == [job.lease]
    job.finish("one two three four")
    assert job.streams._streams == {}
    assert texts(client.stream(job.id)) == ["one ", "two three four"]


def test_a_stream_is_capped_and_expires_with_its_result(
    job: Job, client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.streams._limits = (int(settings.redis.result_ttl_s * 1000), 200)
    whole = [f"{number} " for number in range(1000)]
    job.write(*whole)
    assert 200 <= job.redis.xlen(keys.stream(job.id)) < 400
    assert 0 < job.redis.pttl(keys.stream(job.id)) <= settings.redis.result_ttl_s * 1000
    job.finish("".join(whole))
    assert texts(client.stream(job.id)) == ["".join(whole)]


def test_a_slow_reader_holds_a_bounded_part(job: Job, client: Client) -> None:
    job.write(*(f"{number} " for number in range(5 * AT_ONCE)))

    def commands() -> int:
        return int(job.redis.info("commandstats")["cmdstat_xread"]["calls"])

    slow = client.stream(job.id)
    next(slow)
    before = commands()
    list(itertools.islice(slow, AT_ONCE - 1))
    assert commands() == before
    next(slow)
    assert commands() == before + 1


def test_half_a_surrogate_pair_keeps_its_place(job: Job, client: Client) -> None:
    job.write("a\ud800", "b")
    assert [fields[b"text"].decode() for fields in job.entries()] == ["a?", "b"]
    assert [fields[b"at"] for fields in job.entries()] == [b"0", b"2"]


def test_log_probabilities_and_tool_calls_go_with_the_text(job: Job, client: Client) -> None:
    """Those of several pieces in one write stay in order, and each names how many came before."""
    job.streams.add(job.id, Made(job.lease, 0, "a", 1, logprobs=({"token": "a"},)))
    job.streams.flush()
    job.streams.add(job.id, Made(job.lease, 0, "b", 1, logprobs=({"token": "b"},)))
    job.streams.add(job.id, Made(job.lease, 0, "c", 1, logprobs=({"token": "c"},)))
    job.streams.add(job.id, Made(job.lease, 0, "c1 look\n{", 1, call=0))
    job.streams.flush()
    assert [json.loads(fields[b"logprobs"]) for fields in job.entries() if b"logprobs" in fields] == [
        [0, [{"token": "a"}]],
        [1, [{"token": "b"}, {"token": "c"}]],
    ]
    assert [fields.get(b"call") for fields in job.entries()] == [None, None, b"0"]
    job.finish("abc")
    pieces = list(client.stream(job.id))
    assert [(piece.text, [entry["token"] for entry in piece.logprobs]) for piece in pieces] == [
        ("a", ["a"]),
        ("bc", ["b", "c"]),
    ]


def test_log_probabilities_of_no_text_yet_wait_for_one_whatever_else_is_written(job: Job) -> None:
    job.streams.add(job.id, Made(job.lease, 0, "", 1, logprobs=({"token": "half"},)))
    job.streams.add(job.id, Made(job.lease, 1, "another", 1))
    job.streams.flush()
    job.streams.add(job.id, Made(job.lease, 0, "whole", 1, logprobs=({"token": "whole"},)))
    job.streams.flush()
    assert [json.loads(fields[b"logprobs"]) for fields in job.entries() if b"logprobs" in fields] == [
        [0, [{"token": "half"}, {"token": "whole"}]]
    ]
