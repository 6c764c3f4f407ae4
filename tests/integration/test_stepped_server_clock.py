"""Leases, delays and quotas while the server's clock is set, forward and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from benchmarks.field.stepped_clock import SteppedClock
from deploy.machine.server import Server
from gateway.access import api_key_store
from gateway.access.api_key import ApiKey, digest
from processes import wait_for
from producer import Client
from producer.contract import keys
from producer.contract.fleet.fleet_schema import Redis
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import Tenant
from redis_replies import scores
from scheduler.lease.queue import Queue
from scheduler.lease.server_clock import ServerClock

MODEL = "m"
HOUR_S = 3600


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path / "clock")


@pytest.fixture
def redis(tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis_py.Redis]:
    """A client of a server that lives by the stepped clock."""
    server = Server(tmp_path / "server", appendonly="no")
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        server.spawn()
    server.wait_until_ready()
    with redis_py.Redis.from_url(server.url) as client:
        yield client
    server.stop()


def step_clock(redis: redis_py.Redis, clock: SteppedClock, seconds: int) -> None:
    """Set the clock, and wait until the server tells that time: for one turn of its loop it tells one from before."""
    clock.set(seconds)
    wait_for(lambda: abs(redis.time()[0] - time.time() - seconds) < 60, "the server to see the step")


def queue(redis: redis_py.Redis, lease_s: float = 30.0) -> Queue:
    made = Queue(redis, Settings(redis=Redis(lease_s=lease_s), models={MODEL: {"engine": "echo"}}), MODEL)
    assert made.reap() == (0, 0)
    return made


def test_no_worker_is_taken_for_silent_because_the_clock_was_set_forward(
    redis: redis_py.Redis, clock: SteppedClock
) -> None:
    jobs = queue(redis)
    redis.lpush(keys.queue(MODEL, "batch"), b"1")
    (job,) = jobs.claim(1, "worker")
    for step in (1, 2, 3):
        step_clock(redis, clock, step * HOUR_S)
        assert jobs.reap() == (0, 0)
        assert jobs.renew([job.lease]) == []
        assert jobs.reap() == (0, 0)
    assert not redis.exists(keys.losses(MODEL), keys.dead(MODEL))
    assert jobs.finish([(job.lease, "id", b"{}")]) == []


def test_a_step_between_the_look_at_the_clock_and_the_reaping_takes_no_job_either(
    redis: redis_py.Redis, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = queue(redis)
    redis.lpush(keys.queue(MODEL, "batch"), b"1")
    (job,) = jobs.claim(1, "worker")
    look = jobs._server_clock.was_set_forward_within

    def look_and_step(seconds: float) -> bool:
        found = look(seconds)
        step_clock(redis, clock, HOUR_S)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(jobs._server_clock, "was_set_forward_within", look_and_step)
        assert jobs.reap() == (0, 0)
    assert jobs.reap() == (0, 0)
    assert jobs.renew([job.lease]) == []


@pytest.mark.parametrize("step", [HOUR_S, -HOUR_S])
def test_a_dead_workers_job_is_taken_back_soon_though_the_clock_was_set(
    redis: redis_py.Redis, clock: SteppedClock, step: int
) -> None:
    jobs = queue(redis, lease_s=1.0)
    redis.lpush(keys.queue(MODEL, "batch"), b"1")
    assert jobs.claim(1, "dead worker")
    step_clock(redis, clock, step)
    wait_for(lambda: jobs.reap() == (1, 0), "its job")
    assert [job.message for job in jobs.claim(1, "another")] == [b"1"]


def test_an_engine_that_is_lost_gives_its_jobs_back_at_once_even_then(
    redis: redis_py.Redis, clock: SteppedClock
) -> None:
    jobs = queue(redis)
    redis.lpush(keys.queue(MODEL, "batch"), b"1")
    (job,) = jobs.claim(1, "worker")
    step_clock(redis, clock, HOUR_S)
    jobs.expire([job.lease])
    assert redis.lrange(keys.queue(MODEL, "batch"), 0, -1) == [b"1"]


def test_a_job_that_was_put_aside_does_not_wait_for_the_hour_to_come_round(
    redis: redis_py.Redis, clock: SteppedClock
) -> None:
    jobs = queue(redis)
    redis.lpush(keys.queue(MODEL, "batch"), b"1")
    (job,) = jobs.claim(1, "worker")
    assert jobs.defer(job.lease) == 1
    step_clock(redis, clock, -HOUR_S)
    jobs.reap()
    ((_, due),) = scores(redis, keys.deferred(MODEL))
    assert due - redis.time()[0] < 120


def test_no_queue_goes_last_for_an_hour_because_the_clock_was_set_back(
    redis: redis_py.Redis, clock: SteppedClock
) -> None:
    jobs = queue(redis)
    for tier in ("interactive", "batch"):
        redis.lpush(keys.queue(MODEL, tier), *(b"%d" % n for n in range(3)))
    assert jobs.claim(1, "before")
    step_clock(redis, clock, -HOUR_S)
    assert jobs.claim(1, "after")
    for since in (keys.served(MODEL), keys.waiting(MODEL)):
        assert all(float(at) <= redis.time()[0] + 1 for at in redis.hvals(since))


def test_a_tenant_and_an_api_key_are_not_shut_out_for_an_hour(redis: redis_py.Redis, clock: SteppedClock) -> None:
    tenants = {"team": Tenant(tokens_per_minute=600)}
    url = f"redis://127.0.0.1:{redis.get_connection_kwargs()['port']}/0"
    settings = Settings(redis=Redis(url=url), models={MODEL: {"engine": "echo"}}, tenants=tenants)
    jobs = Queue(redis, settings, MODEL)
    redis.hset(keys.spent(MODEL), "team", f"300@{redis.time()[0]}")
    with Client(settings) as client:
        client.submit(MODEL, "hello", tenant="team")
    api_key_store.add(redis, "secret", ApiKey(id="k", requests_per_minute=60))
    admit = redis.register_script(api_key_store.ADMIT_LUA)
    assert admit([keys.api_keys(), keys.rate("k")], [digest("secret")])[2] == 0
    step_clock(redis, clock, -HOUR_S)
    assert jobs.claim(1, "worker")
    assert admit([keys.api_keys(), keys.rate("k")], [digest("secret")])[2] == 0


class Ticking:
    """Answers TIME."""

    def __init__(self) -> None:
        self.server_s = 1_000_000.0

    def time(self) -> tuple[int, int]:
        return int(self.server_s), int(self.server_s % 1 * 1e6)


def test_a_slow_answer_is_no_step() -> None:
    server, own = Ticking(), [0.0, 0.0, 10.0, 25.0, 30.0, 30.1]
    clock = ServerClock(server, lambda: own.pop(0))  # type: ignore[arg-type]  # a stand-in
    assert not clock.was_set_forward_within(5)
    server.server_s += 24  # asked after 10 s, and answered after 24, of which we heard after 25
    assert not clock.was_set_forward_within(5)
    server.server_s += 60
    assert clock.was_set_forward_within(5)
