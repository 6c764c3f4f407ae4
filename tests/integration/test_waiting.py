"""Where a job waits and until when, asked of a real server; and the autoscaler that learns from its estimates."""

import json
import time
from pathlib import Path

import pytest
import redis as redis_py

from autoscaler import roster
from autoscaler.actions.whatif import OneMore
from autoscaler.foresights import Foresights
from autoscaler.journal import Journal
from autoscaler.published_view import Sizes, Wanted
from autoscaler.sizing.demand import assess, watch
from deploy import acl
from deploy.cli.job import json_of, text_of
from deploy.machine.server import Server
from producer import Client
from producer.contract import heartbeat, keys
from producer.contract.errors import BrokerUnavailable, UnknownTier
from producer.contract.fleet_schema import Model, Redis
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.job import Status
from producer.contract.settings import Settings
from producer.estimates import queued_job
from producer.estimates.wait_time import Errors, Why
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
    demand = {
        "model": "m",
        "tiers": [{"tier": "interactive", "arrivals_per_s": 0.5}],
        "jobs_per_s": 2.0,
        "load_s": 20.0,
    }
    redis.set(keys.sizes(), json.dumps({"at": 0, "models": {"m": {"replicas": 1, "demand": demand, "hold": hold}}}))


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
        assert client.waiting(jobs[7], model="m").estimate.starts.expected > found.estimate.starts.expected  # type: ignore[union-attr]
        text = text_of(jobs[6], found)
        assert "is queued at m.batch, 6 jobs before it" in text
        assert "behind 3 jobs of tier interactive" in text
        assert "nine times in ten" in text
        assert json.loads(json_of(jobs[6], found))["estimate"]["why"] == "behind others"


def test_without_a_worker_or_with_one_that_loads_that_is_the_reason(redis: redis_py.Redis, settings: Settings) -> None:
    with Client(settings) as client:
        job = client.submit("m", "x")
        assert client.waiting(job).estimate.why is Why.NO_WORKER  # type: ignore[union-attr]
        wanted(redis, hold="no idle device: cpu:0 is held by n-1")
        assert client.waiting(job).estimate.reason == "no idle device: cpu:0 is held by n-1"  # type: ignore[union-attr]
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
    journal, traffic, now = Journal(redis), None, 1000.0
    foresights = Foresights(redis, journal)

    def look() -> None:
        nonlocal traffic
        queues, beats = observe(redis, settings)["m"], heartbeat.read_all(redis)
        traffic = watch(traffic, now, queues)
        demand = assess(now, settings, queues, traffic, roster.call(beats, [], "here"), {"jobs_per_s": 1.0})
        wanted = Wanted(1, "", demand, OneMore(1, "interactive", None))
        journal.wanted(Sizes(now, "slack", {"m": wanted}), 60)
        foresights.look(now, settings, wanted, beats)

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
