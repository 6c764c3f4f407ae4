"""The collector: every result once, whether it was there before or comes later, and over broken connections."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from producer import collect
from producer.collect import AT_ONCE, Collector
from producer.contract import keys


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
