"""Where a job waits and until when, asked of a real server; and the autoscaler that learns from its estimates."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import redis as redis_py
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_
from hypothesis import strategies as st

from autoscaler import roster
from autoscaler.controller import Controller
from autoscaler.devices.device import Device
from autoscaler.estimates.estimate_follower import LAST_QUEUED_LUA, MOST_TENANTS, EstimateFollower
from autoscaler.launchers.protocol import Ended, Launched, Placement
from autoscaler.published_view import demand_view
from autoscaler.sizing.demand import assess, watch
from deploy import acl
from deploy.cli.job import json_of, text_of
from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import Client
from producer.contract import heartbeat, keys
from producer.contract.errors import BrokerUnavailable, UnknownTier
from producer.contract.fleet.fleet_schema import Model, Redis
from producer.contract.fleet.settings import Settings
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.message import celery_message
from producer.contract.message.job import Status
from producer.contract.published import (
    PublishedDemand,
    PublishedSize,
    PublishedSizes,
    PublishedTier,
    ScaleUpConditions,
)
from producer.estimates import queued_job, wait_time
from producer.estimates.wait_time import Errors, Estimate, Why
from scheduler import results
from scheduler.queue_lengths import observe

MODEL = Model(engine="echo", max_concurrency=4)


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(redis=Redis(url=server.url), models={"m": MODEL, "n": MODEL})


def beat(
    redis: redis_py.Redis, state: WorkerState = WorkerState.READY, running: tuple[str, ...] = ("1", "2", "3", "4")
) -> None:
    now = time.time()
    fields = {
        "name": "w", "model": "m", "device": "cpu:0", "host": "here", "pid": 1, "pid_created_at": 0, "state": state,
        "started_at": now - 5, "ready_at": now if state is WorkerState.READY else None, "beat_at": now, "capacity": 4,
        "running": running, "jobs_per_s": 2.0,
    }  # fmt: skip
    heartbeat.write(redis, Heartbeat.model_validate(fields))


def wanted(redis: redis_py.Redis, hold: str = "") -> None:
    """What the autoscaler publishes, more than is read."""
    tier = PublishedTier(tier="interactive", target_wait_s=1.0, arrivals_per_s=0.5)
    publish(redis, PublishedDemand(model="m", tiers=(tier,), jobs_per_s=2.0, load_s=20.0), hold)


def publish(redis: redis_py.Redis, demand: PublishedDemand, hold: str = "") -> PublishedSize:
    one_more = ScaleUpConditions(present=1, tier="interactive", queued=None)
    size = PublishedSize(replicas=1, reason="", demand=demand, one_more=one_more, hold=hold)
    sizes = PublishedSizes(at=0.0, policy="slack", models={demand.model: size})
    redis.set(keys.sizes(), sizes.model_dump_json())
    return size


def estimated(client: Client, job_id: str, model: str | None = None) -> Estimate:
    found = client.waiting(job_id, model).estimate
    assert found is not None
    return found


def test_a_queued_job_is_told_what_is_before_it_why_and_until_when(redis: redis_py.Redis, settings: Settings) -> None:
    beat(redis)
    wanted(redis)
    with Client(settings) as client:
        client.submit_many([client.job("m", f"{n}", tier="interactive") for n in range(3)])
        jobs = client.submit_many([client.job("m", f"{n}", tier="batch") for n in range(10)])
        found = client.waiting(jobs[6])
        assert (found.status, found.model, found.tier, found.ahead, found.exact) == (
            Status.QUEUED, "m", "batch", 6, True,
        )  # fmt: skip
        assert found.estimate is not None
        assert found.estimate.why is Why.BEHIND
        assert found.estimate.reason == "behind 3 jobs of tier interactive and 6 jobs of tier batch"
        # 3 + 6 and itself, of which 2 a second end and half a more urgent one comes.
        assert found.estimate.starts.expected == pytest.approx(10 / 1.5)
        assert estimated(client, jobs[7], "m").starts.expected > found.estimate.starts.expected
        text = text_of(jobs[6], found)
        assert "is queued at m.batch, 6 jobs before it" in text
        assert "behind 3 jobs of tier interactive" in text
        assert "nine times in ten" in text
        assert json.loads(json_of(jobs[6], found))["estimate"]["why"] == "behind others"


def test_without_a_worker_or_with_one_that_loads_that_is_the_reason(redis: redis_py.Redis, settings: Settings) -> None:
    with Client(settings) as client:
        job = client.submit("m", "x")
        assert estimated(client, job).why is Why.NO_WORKER
        wanted(redis, hold="no idle device: cpu:0 is held by n-1")
        assert estimated(client, job).reason == "no idle device: cpu:0 is held by n-1"
        beat(redis, WorkerState.LOADING, running=())
        found = client.waiting(job).estimate
        assert found is not None
        assert found.why is Why.LOADING
        assert found.starts.expected == pytest.approx(15, abs=2)  # 20 s to load, 5 of them over


def test_running_ended_and_unknown_jobs_wait_for_nothing(redis: redis_py.Redis, settings: Settings) -> None:
    with Client(settings) as client:
        job = client.submit("m", "x")
        beat(redis, running=(heartbeat.mark(job),))
        assert client.waiting(job) == queued_job.Waiting(Status.RUNNING, "m")
        assert client.cancel(job)
        assert client.waiting(job).status is Status.CANCELLED
        assert "has ended: cancelled" in text_of(job, client.waiting(job))
        unknown = client.waiting("nobody-s")
        assert unknown.estimate is None
        assert "in no queue" in text_of("nobody-s", unknown)
        with pytest.raises(UnknownTier):
            client.waiting(job + "x", "m", "none")


def test_in_a_long_queue_only_its_ends_are_looked_at(
    redis: redis_py.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_job, "LOOK_AT", 300)
    with Client(settings) as client:
        jobs = client.submit_many([client.job("m", f"{n}", tier="batch") for n in range(2000)])
        for place in (0, 299, 1700, 1999):
            assert (client.waiting(jobs[place]).ahead, client.waiting(jobs[place]).exact) == (place, True)
        deep = client.waiting(jobs[1000])
        assert (deep.tier, deep.ahead, deep.exact) == ("batch", 1999, False)
        assert "at most 1999 jobs before it" in text_of(jobs[1000], deep)


def test_a_tenant_that_had_more_than_its_share_is_told_so(redis: redis_py.Redis, settings: Settings) -> None:
    beat(redis)
    wanted(redis)
    with Client(settings) as client:
        greedy = client.submit_many([client.job("m", f"{n}", tier="batch", tenant="greedy") for n in range(6)])
        modest = client.submit_many([client.job("m", f"{n}", tier="batch", tenant="modest") for n in range(2)])
        redis.zadd(keys.counters("m", "batch"), {"greedy": 5000.0})  # what it was served
        found = client.waiting(greedy[3])
        assert (found.tier, found.ahead) == ("batch", 3 + 2)
        assert found.estimate is not None
        assert found.estimate.why is Why.SHARE
        assert client.waiting(modest[1]).ahead == 1 + 1


def test_a_producer_sees_no_queue_and_is_told_of_its_end(own_server: Server, tmp_path: Path) -> None:
    settings = Settings(redis=Redis(url=own_server.url), models={"m": MODEL})
    admin = redis_py.Redis.from_url(own_server.url)
    admin.execute_command("ACL", "SETUSER", "p", "reset", "on", ">p", *acl.rules("producer", settings))
    theirs = settings.model_copy(update={"redis": Redis(url=own_server.url.replace("redis://", "redis://p:p@"))})
    with Client(theirs) as client:
        jobs = client.submit_many([client.job("m", f"{n}", tier="batch") for n in range(5)])
        with pytest.raises(BrokerUnavailable, match="give model and tier"):
            client.waiting(jobs[0])
        found = client.waiting(jobs[0], "m", "batch")
        assert (found.ahead, found.exact) == (4, False)
    admin.close()


def test_the_autoscaler_learns_of_the_estimates_that_are_read_and_corrects_these(
    redis: redis_py.Redis, settings: Settings
) -> None:
    traffic, now = None, 1000.0
    follower = EstimateFollower(redis)

    def look() -> None:
        nonlocal traffic
        queues, beats = observe(redis, settings)["m"], heartbeat.read_all(redis)
        traffic = watch(traffic, now, queues)
        demand = assess(now, settings, queues, traffic, roster.list_workers(beats, [], "here"), {"jobs_per_s": 1.0})
        follower.look(now, settings, publish(redis, demand_view(demand)), beats)

    queue = keys.queue("m", "batch")
    beat(redis, running=())
    with Client(settings) as client:
        for _ in range(25):
            job = client.submit("m", "x", tier="batch")
            look()
            found = client.waiting(job).estimate
            assert found is not None
            assert (found.why, found.starts.expected) == (Why.BATCH, 0)
            now += 3.0
            redis.delete(queue)
            redis.hincrby(keys.taken("m"), queue, 1)
            look()
            now += 10.0
        job = client.submit("m", "x", tier="batch")
        found = client.waiting(job).estimate
    assert found is not None
    assert found.starts.low == found.starts.high == pytest.approx(3.0, abs=0.01)
    redis.set(keys.estimates("m"), "rubbish")
    assert queued_job.recall(redis, "m") == Errors()


class NoDevices:
    """A machine without devices, and a launcher that has nothing to do there."""

    id = source = "none"

    def devices(self) -> list[Device]:
        return []

    def list(self) -> Sequence[Launched]:
        return []

    def ended(self) -> Sequence[Ended]:
        return []

    def adopt(self, beats: Iterable[Heartbeat]) -> None: ...

    def start(self, placement: Placement) -> str:
        raise AssertionError(placement)

    def drain(self, name: str, grace_s: float) -> None:
        raise AssertionError(name, grace_s)


def test_a_live_fleet_learns_when_jobs_end_under_the_kind_that_readers_look_up(
    redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_time, "SPACING_S", 0.0)  # each round is learned from
    tables = """
    [scaling]
    interval_s = 0.05
    [models.m]
    engine = "echo"
    max_concurrency = 2
    options = { delay_s = 0.1 }
    """
    fleet = make_fleet(server.url, tables)
    fleet.worker("m", "w")
    controller = Controller(fleet.settings, redis, NoDevices(), NoDevices())
    controller.start()
    read, jobs = set[str](), list[str]()

    def learned() -> bool:
        if fleet.redis.llen(keys.queue("m", "batch")) < 6:  # jobs wait in each round, and none for long
            jobs[:] = fleet.client.submit_many(fleet.client.job("m", "x", tier="batch") for _ in range(6))
        found = fleet.client.waiting(jobs[-1]).estimate
        read.update([found.kind] if found else [])
        known = queued_job.recall(redis, "m").quantiles().keys()
        return any(kind in known and f"{kind}: end" in known for kind in read)

    try:
        wait_for(learned, "ends to be learned of the kind of estimates that are read")
    finally:
        controller.stop()


@settings_(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jobs=st.lists(st.sampled_from(["default", "acme", "b, c", "d"]), min_size=1, max_size=12))
def test_the_job_that_the_autoscaler_follows_is_the_last_as_readers_count(
    redis: redis_py.Redis, settings: Settings, jobs: list[str]
) -> None:
    redis.flushall()
    last = redis.register_script(LAST_QUEUED_LUA)
    queue = keys.queue("m", "batch")
    assert last([queue], [MOST_TENANTS]) == b""
    with Client(settings) as client:
        for tenant in jobs:
            client.submit("m", "x", tier="batch", tenant=tenant)
        assert client.waiting(last([queue], [MOST_TENANTS]).decode()).ahead == len(jobs) - 1


def test_whatever_is_stored_where_a_queue_or_a_result_should_be_the_rest_is_learned(
    redis: redis_py.Redis, settings: Settings
) -> None:
    last, queue = redis.register_script(LAST_QUEUED_LUA), keys.queue("m", "batch")
    for message in ("{}", '{"id": 1}', '{"id": ""}', '{"id": "a b"}', '{"id": "' + "x" * 300 + '"}', "rubbish"):
        redis.lpush(queue, message)
        assert last([queue], [MOST_TENANTS]) == b""
    follower = EstimateFollower(redis)
    redis.lpush(keys.result("list"), "x")
    redis.set(keys.result("text"), "x")
    redis.set(keys.result("failed"), results.failed("failed", ValueError("x")))
    redis.set(keys.result("cancelled"), celery_message.cancelled_meta("cancelled"))
    redis.set(keys.result("started"), '{"status": "STARTED"}')
    jobs = ["list", "text", "failed", "cancelled", "started", "missing"]
    assert follower.ended(jobs) == {"failed": True, "cancelled": False}
    redis.delete(queue)
    redis.set(queue, "no list")
    assert last([queue], [MOST_TENANTS]) == b""


def test_the_rights_of_an_autoscaler_suffice_to_follow_jobs(own_server: Server) -> None:
    settings = Settings(redis=Redis(url=own_server.url), models={"m": MODEL})
    admin = redis_py.Redis.from_url(own_server.url)
    admin.execute_command("ACL", "SETUSER", "a", "reset", "on", ">a", *acl.rules("autoscaler", settings))
    theirs = redis_py.Redis.from_url(own_server.url.replace("redis://", "redis://a:a@"))
    with Client(settings) as client:
        for tenant in ("default", "acme", "acme"):
            job = client.submit("m", "x", tier="batch", tenant=tenant)
    admin.set(keys.result(job), results.succeeded(job, "y"))
    assert EstimateFollower(theirs).ended([job]) == {job: True}
    assert theirs.register_script(LAST_QUEUED_LUA)([keys.queue("m", "batch")], [MOST_TENANTS]) == job.encode()
    theirs.close()
    admin.close()
