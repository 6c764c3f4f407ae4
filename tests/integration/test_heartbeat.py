"""The index of the workers on a real server: whatever is in it, those that live are seen."""

import logging
import socket
import time
from types import SimpleNamespace

import pytest
import redis as redis_py

from deploy.machine.server import Server
from producer.contract import heartbeat, keys
from producer.contract.heartbeat import Heartbeat, WorkerState
from workers.breaker import Breaker
from workers.heartbeat_sender import HeartbeatSender


def beat(name: str, **fields: object) -> Heartbeat:
    known = {"name": name, "model": "m", "device": "cpu:0", "host": socket.gethostname(), "pid": 7}
    times = {"pid_created_at": 1.0, "started_at": 1.0, "beat_at": time.time()}
    return Heartbeat.model_validate({**known, **times, "state": WorkerState.READY, **fields})


NOT_A_NUMBER = beat("y").model_dump_json().replace('"busy":0.0', '"busy":NaN').encode()


def names(redis: redis_py.Redis) -> list[str]:
    return [one.name for one in heartbeat.read_all(redis)]


@pytest.mark.parametrize(
    "rubbish", [b"", b"\xff\x00", b"{}", b"[1]", b'{"name": "old", "state": "retired"}', NOT_A_NUMBER]
)
def test_a_heartbeat_that_is_none_hides_no_worker_and_is_said_once(
    redis: redis_py.Redis, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"rubbish-{time.time_ns()}"
    heartbeat.write(redis, beat("a"))
    redis.set(keys.worker(name), rubbish)
    redis.zadd(keys.workers(), {name: time.time()})
    heartbeat.write(redis, beat("z"))
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        assert names(redis) == ["a", "z"]
    assert sum(name in one.getMessage() for one in caplog.records) == 1


def test_values_without_names_are_read_with_the_bad_ones_passed_over() -> None:
    assert heartbeat.parse([b"rubbish", None, beat("a").model_dump_json()])[0].name == "a"


def test_a_name_that_is_no_text_and_a_key_of_another_type_hide_no_worker(redis: redis_py.Redis) -> None:
    heartbeat.write(redis, beat("a"))
    redis.zadd(keys.workers(), {b"\xff\xfe": time.time(), b"list": time.time()})
    redis.rpush(keys.worker("list"), "x")
    assert names(redis) == ["a"]


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
def test_clocks_that_disagree_hide_no_worker(redis: redis_py.Redis, skew_s: float) -> None:
    heartbeat.write(redis, beat("a", beat_at=time.time() + skew_s))
    assert names(redis) == ["a"]


def test_workers_whose_heartbeat_expired_leave_the_index(redis: redis_py.Redis) -> None:
    heartbeat.write(redis, beat("a"))
    redis.zadd(keys.workers(), {"gone": time.time() + 3600})
    assert names(redis) == ["a"]
    assert redis.zrange(keys.workers(), 0, -1) == [b"a"]


def test_who_may_only_read_still_reads(redis: redis_py.Redis, server: Server) -> None:
    heartbeat.write(redis, beat("a"))
    redis.zadd(keys.workers(), {"gone": time.time()})
    redis.acl_setuser("onlooker", enabled=True, nopass=True, commands=["+zrange", "+mget"], keys=["*"])
    with redis_py.Redis.from_url(server.url, username="onlooker", password="any") as onlooker:  # noqa: S106  none is asked
        assert names(onlooker) == ["a"]
    redis.acl_deluser("onlooker")
    assert redis.zscore(keys.workers(), "gone") is not None


def test_a_clock_that_is_set_while_a_model_loads_makes_no_load_longer(
    redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, meter = SimpleNamespace(ready_at=None), SimpleNamespace(read=lambda: (0.0, 0.0, 0.0), jobs_done=0)
    learned = SimpleNamespace(load=lambda _: None, save=lambda _: None)
    pool = SimpleNamespace(
        device=device, meter=meter, holding=learned, draining=False, capacity=1, running_jobs=(), breaker=Breaker()
    )
    assignment = SimpleNamespace(name="w", model="m", device="cpu:0", device_uuid="", device_type="cpu")
    heart = HeartbeatSender(SimpleNamespace(engine_pool=pool, assignment=assignment), redis, "")  # type: ignore[arg-type]  # a stand-in
    heart.beat()
    (loading,) = heartbeat.read_all(redis)
    stepped = time.time
    monkeypatch.setattr(time, "time", lambda: stepped() + 3600)
    device.ready_at = time.monotonic()
    heart.beat()
    (ready,) = heartbeat.read_all(redis)
    assert ready.ready_at is not None
    assert 0 < ready.ready_at - ready.started_at < 3600  # the step is not in it; pytest may have run for minutes
    assert ready.started_at - loading.started_at == pytest.approx(3600, abs=60)
    assert 0 < float(redis.hget(keys.throughput("m"), "load_s") or 0) < 3600
