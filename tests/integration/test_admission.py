"""Deadlines that are out of reach, asked of a real server; and of a real worker that is slow."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis as redis_py

from deploy import acl
from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import AsyncClient, Client, DeadlineUnreachable, InvalidJob, Status
from producer.contract import heartbeat, keys
from producer.contract.fleet.fleet_schema import Model, Redis
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState

SLOW = """
[models.slow]
engine = "echo"
max_concurrency = 1
options = { delay_s = 0.1 }
"""
TIERS = ("interactive", "standard", "batch")

Submit = Callable[..., str]


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(redis=Redis(url=server.url), models={"m": Model(engine="echo", max_concurrency=4, tiers=TIERS)})


@pytest.fixture(params=["sync", "async"])
def submit(request: pytest.FixtureRequest, settings: Settings) -> Submit:
    """Submits one job with either client."""

    async def awaited(*given: Any, **how: Any) -> str:
        async with AsyncClient(settings) as client:
            return await client.submit(*given, **how)

    def by(*given: Any, **how: Any) -> str:
        if request.param == "async":
            return asyncio.run(awaited(*given, **how))
        with Client(settings) as client:
            return client.submit(*given, **how)

    return by


def busy(redis: redis_py.Redis) -> None:
    """A worker that is full, and ends two jobs a second."""
    now = time.time()
    fields = {
        "name": "w", "model": "m", "device": "cpu:0", "host": "here", "pid": 1, "pid_created_at": 0, "started_at": now,
        "state": WorkerState.READY, "ready_at": now, "beat_at": now, "capacity": 4, "running": ("1", "2", "3", "4"),
        "jobs_per_s": 2.0,
    }  # fmt: skip
    heartbeat.write(redis, Heartbeat.model_validate(fields))


def backlog(settings: Settings, jobs: int, **how: Any) -> list[str]:
    with Client(settings) as client:
        return client.submit_many([client.job("m", "x", **how) for _ in range(jobs)])


def lengths(redis: redis_py.Redis) -> list[int]:
    return [redis.llen(keys.queue("m", tier)) for tier in TIERS]


def test_behind_a_backlog_it_is_refused_degraded_or_accepted_as_asked(
    redis: redis_py.Redis, settings: Settings, submit: Submit
) -> None:
    backlog(settings, 100)
    busy(redis)
    before = datetime.now(UTC)
    with pytest.raises(DeadlineUnreachable, match="behind 100 jobs of tier interactive") as refused:
        submit("m", "x", deadline=3, admission="refuse")
    # A hundred before it and itself at 2 a second, 4 of them together for 2 s: a fifth of that, at the earliest.
    assert (refused.value.earliest - before).total_seconds() == pytest.approx(52.5 / 5, abs=1)
    assert refused.value.retry_after_s == pytest.approx(52.5 / 5 - 3, abs=0.5)
    assert lengths(redis) == [100, 0, 0]
    submit("m", "x", deadline=refused.value.earliest + timedelta(seconds=1), admission="refuse")
    assert lengths(redis) == [101, 0, 0]
    submit("m", "x", deadline=3, admission="degrade")
    assert lengths(redis) == [101, 1, 0]
    submit("m", "x", deadline=3)
    submit("m", "x", admission="refuse")
    assert lengths(redis) == [103, 1, 0]
    with pytest.raises(InvalidJob, match="admission"):
        submit("m", "x", admission="perhaps")


def test_of_a_model_that_was_never_measured_nothing_is_refused(redis: redis_py.Redis, submit: Submit) -> None:
    submit("m", "x", deadline=2, admission="refuse")
    assert lengths(redis) == [1, 0, 0]


def test_one_that_is_queued_already_is_not_refused(redis: redis_py.Redis, settings: Settings, submit: Submit) -> None:
    order = {"deadline": 3, "idempotency_key": "order", "admission": "refuse"}
    first = submit("m", "x", **order)
    backlog(settings, 100)
    busy(redis)
    assert submit("m", "x", **order) == first
    assert lengths(redis) == [101, 0, 0]


def test_what_goes_by_its_deadline_waits_only_for_what_is_due_before_it(
    redis: redis_py.Redis, settings: Settings, submit: Submit
) -> None:
    busy(redis)
    backlog(settings, 100, tier="interactive")
    backlog(settings, 100, tier="batch")
    batch = {"tier": "batch", "deadline": 20, "admission": "refuse"}
    submit("m", "x", **batch)
    backlog(settings, 300, tier="batch", deadline=200)
    submit("m", "x", **batch)
    backlog(settings, 300, tier="batch", deadline=10)
    with pytest.raises(DeadlineUnreachable, match="behind 302 jobs of tier batch"):
        submit("m", "x", **batch)
    submit("m", "x", tenant="modest", **batch)  # its turn comes before that


def test_a_producer_with_its_rights_is_told(own_server: Server, settings: Settings) -> None:
    settings = settings.model_copy(update={"redis": Redis(url=own_server.url)})
    backlog(settings, 300, tier="batch", deadline=10)
    with redis_py.Redis.from_url(own_server.url) as admin:
        busy(admin)
        admin.execute_command("ACL", "SETUSER", "p", "reset", "on", ">p", *acl.rules("producer", settings))
    theirs = settings.model_copy(update={"redis": Redis(url=own_server.url.replace("redis://", "redis://p:p@"))})
    with Client(theirs) as client, pytest.raises(DeadlineUnreachable, match="behind 300 jobs"):
        client.submit("m", "x", tier="batch", deadline=20, admission="refuse")


@pytest.mark.slow
def test_a_slow_worker_refuses_what_it_cannot_do_in_time_and_does_late_what_was_degraded(
    server: Server, redis: redis_py.Redis, make_fleet: Callable[[str, str], Fleet]
) -> None:
    fleet = make_fleet(server.url, SLOW)
    client = fleet.client
    unmeasured = client.submit("slow", "x", deadline=60, admission="refuse")
    fleet.worker("slow", "slow")
    client.result(unmeasured, timeout=60)
    wait_for(lambda: any(beat.jobs_per_s for beat in heartbeat.read_all(redis)), "the worker to be measured")
    in_time = client.submit("slow", "in time", deadline=60, admission="refuse")
    assert client.result(in_time, timeout=60).output == "in time"

    client.submit_many([client.job("slow", f"{n}", tier="interactive") for n in range(3000)])  # five minutes
    with pytest.raises(DeadlineUnreachable) as refused:
        client.submit("slow", "never", deadline=3, admission="refuse")
    assert refused.value.earliest > datetime.now(UTC) + timedelta(seconds=3)
    deadline = datetime.now(UTC) + timedelta(seconds=3)
    late = client.submit("slow", "late", deadline=deadline, admission="degrade")
    found = client.waiting(late)
    assert (found.status, found.tier) == (Status.QUEUED, "standard")
    wait_for(lambda: datetime.now(UTC) > deadline, "the deadline to pass")
    redis.delete(keys.queue("slow", "interactive"))
    assert client.result(late, timeout=60).output == "late"
