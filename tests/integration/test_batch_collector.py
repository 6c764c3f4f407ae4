"""The collector: every result once, whether it was there before or comes later, and over broken connections."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from deploy.machine.server import Server
from producer import AsyncClient, JobFailed, Settings, StokerError, collect
from producer.collect import AT_ONCE, Collector
from producer.contract import keys
from producer.contract.message import celery_message


@pytest.fixture
def collector(redis: redis_py.Redis) -> Iterator[Collector]:
    collector = Collector(redis)
    yield collector
    collector.close()


def end(redis: redis_py.Redis, *job_ids: str, status: str = "SUCCESS") -> None:
    for job_id in job_ids:
        stored = json.dumps({"status": status, "result": None, "task_id": job_id})
        redis.set(keys.result(job_id), stored)
        redis.publish(keys.result(job_id), stored)


def poll(collector: Collector, want: int) -> list[str]:
    found: list[str] = []
    deadline = time.monotonic() + 20
    while len(found) < want and time.monotonic() < deadline:
        found += [job_id for job_id, _ in collector.poll(1.0)]
    return found


def test_before_or_after_makes_no_difference(redis: redis_py.Redis, collector: Collector) -> None:
    end(redis, "before")
    collector.add(["before", "after", "before"])
    assert poll(collector, 1) == ["before"]
    assert len(collector) == 1
    end(redis, "after")
    assert poll(collector, 1) == ["after"]
    assert len(collector) == 0
    assert collector.poll(0.0) == []


def test_without_waiting_what_ended_is_found(redis: redis_py.Redis, collector: Collector) -> None:
    end(redis, "a")
    collector.add(["a", "b"])
    assert [job_id for job_id, _ in collector.poll(0.0)] == ["a"]
    assert collector.poll(0.0) == []


def test_a_result_that_is_not_final_is_none(redis: redis_py.Redis, collector: Collector) -> None:
    end(redis, "a", status="STARTED")
    collector.add(["a"])
    assert collector.poll(0.2) == []
    end(redis, "a", status="RETRY")
    assert collector.poll(0.2) == []
    end(redis, "a", status="FAILURE")
    assert poll(collector, 1) == ["a"]


def test_a_confirmation_that_comes_when_nobody_waits_any_more_finds_nothing_twice(
    redis: redis_py.Redis, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = redis_py.client.PubSub.get_message
    late = [None]

    def get_message(pubsub: redis_py.client.PubSub, timeout: float = 0.0) -> dict[str, Any] | None:
        return late.pop() if late else real(pubsub, timeout=max(timeout, 0.2))

    monkeypatch.setattr(redis_py.client.PubSub, "get_message", get_message)
    end(redis, "a")
    collector.add(["a", "b"])
    assert [job_id for job_id, _ in collector.poll(0.0)] == ["a"]


def test_nothing_to_wait_for_is_not_waited_for(collector: Collector) -> None:
    began = time.monotonic()
    assert collector.poll(30.0) == []
    assert time.monotonic() - began < 10


def test_a_broken_connection_costs_one_call_and_no_result(redis: redis_py.Redis, collector: Collector) -> None:
    collector.add(["a", "b"])
    assert collector.poll(0.1) == []
    redis.client_kill_filter(_type="pubsub")
    end(redis, "a")
    with pytest.raises(redis_py.ConnectionError):
        collector.poll(5.0)
    assert poll(collector, 1) == ["a"]
    end(redis, "b")
    assert poll(collector, 1) == ["b"]


def test_a_missed_notification_is_made_up_for(
    redis: redis_py.Redis, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "RECHECK_S", 0.3)
    collector.add(["a"])
    assert collector.poll(0.1) == []
    redis.set(keys.result("a"), json.dumps({"status": "SUCCESS", "result": None, "task_id": "a"}))  # and no word
    assert poll(collector, 1) == ["a"]


def test_thousands_come_and_go_over_one_connection(redis: redis_py.Redis, collector: Collector) -> None:
    got: list[str] = []
    for lot in range(4):
        names = [f"{lot}-{n}" for n in range(2 * AT_ONCE)]
        collector.add(names)
        end(redis, *names[::2])
        got += [job_id for job_id, _ in collector.poll(0.0)]
        end(redis, *names[1::2])
        got += poll(collector, len(collector))
    assert len(got) == len(set(got)) == 4 * 2 * AT_ONCE
    collector.add(["one more"])
    assert collector.poll(0.2) == []
    assert len(redis.client_list(_type="pubsub")) == 1
    assert redis.pubsub_channels() == [keys.result("one more").encode()]


GARBAGE: list[str | bytes] = [
    "garbage", "", "null", "[]", "7", '{"status": ["SUCCESS"]}', "[" * 100_000, b"\xff\xfe", '{"status": "SUCC',
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_result_is_not_final(redis: redis_py.Redis, collector: Collector, garbage: str | bytes) -> None:
    collector.add(["a", "b"])
    assert collector.poll(0.0) == []
    redis.set(keys.result("b"), garbage)
    redis.publish(keys.result("a"), garbage)
    end(redis, "a")
    assert poll(collector, 1) == ["a"]
    assert collector.poll(0.0) == []


def test_garbage_on_one_channel_fails_no_other_that_waits(redis: redis_py.Redis, server: Server) -> None:
    """Whoever may publish on one result's channel would else end the requests of a whole gateway."""
    ids = [f"job-{number}" for number in range(5)]

    async def wait() -> list[str]:
        async with AsyncClient(Settings.model_validate({"redis": {"url": server.url}})) as client:
            ended = []
            async for job_id, found in client.results(ids, timeout=20):
                ended.append(job_id)
                assert type(found) is not StokerError
            return ended

    async def both() -> list[str]:
        waiting = asyncio.create_task(wait())
        channel = keys.result(ids[0])
        while not dict(await asyncio.to_thread(redis.pubsub_numsub, channel))[channel.encode()]:
            await asyncio.sleep(0.01)
        for garbage in GARBAGE:
            await asyncio.to_thread(redis.publish, channel, garbage)
        await asyncio.to_thread(end, redis, *ids)
        return await waiting

    assert sorted(asyncio.run(both())) == ids


@pytest.mark.parametrize(
    "stored", ['{"status": "SUCCESS"}', '{"status": "FAILURE", "result": "x"}', '{"status": "REVOKED", "result": null}']
)
def test_a_result_that_is_not_ours_is_a_failure(stored: str) -> None:
    with pytest.raises(JobFailed, match="not ours"):
        celery_message.decode(stored)
