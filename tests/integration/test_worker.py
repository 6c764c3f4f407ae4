"""One real worker process with the echo engine: what users, operators and bad luck do to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis as redis_py
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, succeeded, wait_for
from producer import (
    AsyncClient,
    BrokerUnavailable,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    ResultTimeout,
    Status,
)
from producer.contract import heartbeat, keys
from producer.contract.heartbeat import WorkerState
from producer.contract.message.job import TASK, Item, Result
from redis_replies import entries, scores
from scheduler.lease.queue import Queue

TABLES = """
[models.echo]
engine = "echo"
max_concurrency = 16

[models.brittle]
engine = "echo"
max_concurrency = 16
limits = { max_retries = 0 }

[models.slow]
engine = "echo"
max_concurrency = 4
options = { delay_s = 1.0 }

[models.sleepy]
engine = "echo"
options = { delay_s = 30.0 }

[models.stalling]
engine = "echo"
limits = { stall_s = 1.0 }

[models.hasty]
engine = "echo"
options = { delay_s = 30.0 }
limits = { time_limit_s = 0.5 }
"""

MakeFleet = Callable[[str, str], Fleet]


@pytest.fixture
def fleet(redis: redis_py.Redis, server: Server, make_fleet: MakeFleet) -> Fleet:
    return make_fleet(server.url, TABLES)


@pytest.fixture
def stock(server: Server) -> Iterator[Celery]:
    """An application that knows nothing of ours."""
    with Celery("backend", broker=server.url, backend=server.url, set_as_current=False) as app:
        yield app


def dead(fleet: Fleet, model: str = "echo") -> list[str]:
    return [letter[b"reason"].decode() for _, letter in entries(fleet.redis, keys.dead(model))]


def test_jobs_of_every_shape_come_back(fleet: Fleet) -> None:
    fleet.worker("echo", "w")
    one = fleet.client.result(fleet.client.submit("echo", "x"), timeout=DEADLINE_S)
    assert (one.output, one.timing.worker) == ("x", "w")
    assert one.timing.waited_s is not None
    assert one.timing.waited_s < DEADLINE_S
    inputs: list[Item] = ["x", {"y": 1}, [5, 7]]
    many = fleet.client.result(fleet.client.submit("echo", inputs), timeout=DEADLINE_S)
    assert many.output == inputs
    tokens = fleet.client.result(fleet.client.submit("echo", [5, 7]), timeout=DEADLINE_S)
    assert tokens.output == [5, 7], "token ids are one input"


def test_many_jobs_come_back_each_once_and_nothing_is_left(fleet: Fleet) -> None:
    fleet.worker("echo", "w")
    ids = fleet.client.submit_many(fleet.client.job("echo", str(n), tier="batch") for n in range(500))
    found = succeeded(fleet.client, ids)
    assert [found[job].output for job in ids] == [str(n) for n in range(500)]
    assert {result.timing.batch_size for result in found.values()} != {1}
    for key in (keys.inflight("echo"), keys.leases("echo"), keys.losses("echo"), keys.served("echo")):
        assert not fleet.redis.exists(key), key


def test_a_named_tenants_job_wakes_an_idle_worker(fleet: Fleet) -> None:
    fleet.worker("echo", "w")
    fleet.client.result(fleet.client.submit("echo", "x"), timeout=DEADLINE_S)  # from now on it only peeks
    job = fleet.client.submit("echo", "y", tenant="acme, inc.", deadline=DEADLINE_S)
    assert fleet.client.result(job, timeout=DEADLINE_S).output == "y"
    bells = [keys.wake("echo", tier) for tier in fleet.settings.model("echo").tiers]
    wait_for(lambda: not fleet.redis.exists(*bells, keys.inflight("echo")), "the end of it")


async def _through_asyncio(fleet: Fleet) -> None:
    async with AsyncClient(fleet.settings) as client:
        jobs = [await client.submit("echo", str(n)) for n in range(3)]
        found = [each async for each in client.results(jobs, timeout=DEADLINE_S)]
        outputs = {job: result.output for job, result in found if isinstance(result, Result)}
        assert [outputs[job] for job in jobs] == ["0", "1", "2"]
        bad = await client.submit("echo", "x", parameters={"fail": "no good"})
        with pytest.raises(InvalidJob, match="no good"):
            await client.result(bad, timeout=DEADLINE_S)
        assert await client.status(bad) is Status.FAILED
        assert not await client.cancel(bad)


def test_the_async_client_does_the_same(fleet: Fleet) -> None:
    import asyncio

    fleet.worker("echo", "w")
    asyncio.run(_through_asyncio(fleet))


def test_a_stock_application_gets_its_result_and_remote_control(fleet: Fleet, stock: Celery) -> None:
    fleet.worker("echo", "w")
    answer = stock.send_task(TASK, kwargs={"input": ["a", "b"]}, queue="echo.batch")
    assert answer.get(timeout=DEADLINE_S)["output"] == ["a", "b"]
    host = wait_for(lambda: next(iter(stock.control.inspect(timeout=1).ping() or {}), None), "a pong")
    assert host.startswith("w@")


def test_a_stock_application_revokes_a_running_job(fleet: Fleet, stock: Celery) -> None:
    fleet.worker("sleepy", "w")
    running = stock.send_task(TASK, kwargs={"model": "sleepy", "input": "x"}, queue="sleepy.interactive")

    def active() -> list[str]:
        found = stock.control.inspect(timeout=1).active() or {}
        return [task["id"] for tasks in found.values() for task in tasks]

    wait_for(lambda: active() == [running.id], "inspect active to show it")
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=DEADLINE_S)


CANVAS = """
import json, sys
from celery import Celery, chain, chord

app = Celery(broker=sys.argv[1], backend=sys.argv[1])
one = lambda: app.signature("stoker.infer", kwargs={"input": "x"}, immutable=True).set(queue="echo.batch")
heard = {}
with app.connection_for_read() as connection:
    note = lambda event: heard.update({event["uuid"]: event["exception"]})
    with app.events.Receiver(connection, handlers={"task-failed": note}).consumer_context() as (listening, _, _):
        try:
            listening.drain_events(timeout=0.5)  # which also subscribes
        except TimeoutError:
            pass
        sent = [chain(one(), one(), one()), chord([one(), one()], one()), one().set(countdown=60)]
        sent = [each.apply_async().id for each in sent]
        while sent[-1] not in heard:
            listening.drain_events(timeout=60)
print(json.dumps([sent, heard[sent[-1]]]))
"""


def test_what_the_canvas_of_celery_sends_fails_with_the_reason_and_an_event(fleet: Fleet, server: Server) -> None:
    fleet.worker("echo", "w")
    told = subprocess.run([sys.executable, "-c", CANVAS, server.url], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    sent, failure = json.loads(told.stdout)
    assert "a worker does not wait for a job's time" in failure
    for job_id in sent:
        found = wait_for(partial(fleet.redis.get, keys.result(job_id)), "an answer")
        assert b"dead letter" in found


def test_task_protocol_1_is_answered_with_what_is_wrong(fleet: Fleet, stock: Celery) -> None:
    fleet.worker("echo", "w")
    stock.conf.task_protocol = 1
    job_id = stock.send_task(TASK, kwargs={"input": "x"}, queue="echo.batch").id
    found = wait_for(lambda: fleet.redis.get(keys.result(job_id)), "an answer")
    assert b"set task_protocol = 2" in found


def test_a_task_id_used_again_after_a_failure_gets_the_result_of_the_new_run(fleet: Fleet, stock: Celery) -> None:
    fleet.worker("echo", "w")
    failed = stock.send_task(TASK, kwargs={"input": 7}, queue="echo.batch", task_id="again")
    with pytest.raises(Exception, match="input"):
        failed.get(timeout=DEADLINE_S)
    stock.send_task(TASK, kwargs={"input": "x"}, queue="echo.batch", task_id="again")
    wait_for(
        lambda: AsyncResult("again", app=stock).state == "SUCCESS", "the new run's result"
    )  # one keeps what it saw
    assert AsyncResult("again", app=stock).get(timeout=DEADLINE_S)["output"] == "x"


@pytest.mark.slow
def test_a_stock_revoke_outlives_the_worker_that_hears_it(fleet: Fleet, stock: Celery) -> None:
    first = fleet.worker("sleepy", "first")
    queued = stock.send_task(TASK, kwargs={"model": "echo", "input": "x"}, queue="echo.interactive")
    queued.revoke()
    wait_for(lambda: fleet.redis.zscore(keys.cancelled(), queued.id), "it to be remembered")
    first.kill()
    fleet.worker("echo", "second")
    with pytest.raises(TaskRevokedError):
        queued.get(timeout=DEADLINE_S)


def test_a_stock_application_hears_what_is_wrong(fleet: Fleet, stock: Celery) -> None:
    fleet.worker("echo", "w")
    wrong = {
        "input": {"input": 7},
        "is missing": {},
        "send it to other.interactive": {"model": "other", "input": "x"},
        "schema_version = 9": {"input": "x", "schema_version": 9},
        "surprise": {"input": "x", "surprise": 1},
        "max_inputs allows 4096": {"input": ["x"] * 4097},
        "max_input_bytes allows 1048576": {"input": "x" * 1_100_000},
    }
    for message, kwargs in wrong.items():
        answer = stock.send_task(TASK, kwargs=kwargs, queue="echo.interactive")
        with pytest.raises(Exception, match=message):
            answer.get(timeout=DEADLINE_S)
    assert dead(fleet) == []


def test_what_is_not_a_job_is_a_dead_letter_and_the_worker_goes_on(fleet: Fleet, stock: Celery) -> None:
    process = fleet.worker("echo", "w")
    fleet.redis.lpush(keys.queue("echo", "batch"), b"rubbish", b"{}", b"\x80\x05K\x01.")
    stock.send_task("some.other.task", queue="echo.batch")
    wait_for(lambda: len(dead(fleet)) == 4, "the dead letters")
    assert "headers.task is 'some.other.task'" in dead(fleet)[-1]
    assert fleet.client.result(fleet.client.submit("echo", "good"), timeout=DEADLINE_S).output == "good"
    assert process.poll() is None


def test_a_job_is_cancelled_while_it_waits(fleet: Fleet) -> None:
    job = fleet.client.submit("echo", "x")
    assert fleet.client.cancel(job)
    fleet.worker("echo", "w")
    after = fleet.client.submit("echo", "y")
    assert fleet.client.result(after, timeout=DEADLINE_S).output == "y"
    with pytest.raises(JobCancelled):
        fleet.client.result(job, timeout=DEADLINE_S)
    wait_for(lambda: not fleet.redis.exists(keys.inflight("echo")), "the cancelled job to be dropped")


def test_a_job_is_cancelled_while_it_runs(fleet: Fleet) -> None:
    fleet.worker("sleepy", "w")
    job = fleet.client.submit("sleepy", "x")
    wait_for(lambda: fleet.client.status(job) is Status.RUNNING, "the job to run")
    assert fleet.client.cancel(job)
    with pytest.raises(JobCancelled):
        fleet.client.result(job, timeout=DEADLINE_S)
    wait_for(lambda: not fleet.redis.exists(keys.inflight("sleepy")), "the lease to be given up")


def test_a_time_limit_ends_a_job(fleet: Fleet) -> None:
    fleet.worker("hasty", "w")
    with pytest.raises(JobFailed, match="TimeLimitExceeded"):
        fleet.client.result(fleet.client.submit("hasty", "x"), timeout=DEADLINE_S)


def test_a_deadline_that_has_passed_expires_a_job(fleet: Fleet) -> None:
    job = fleet.client.submit("echo", "x", deadline=0.01)
    time.sleep(0.02)  # the deadline itself, not a guess at how long something takes
    fleet.worker("echo", "w")
    with pytest.raises(JobExpired):
        fleet.client.result(job, timeout=DEADLINE_S)


def test_a_deadline_that_passes_while_it_runs_expires_a_job(fleet: Fleet) -> None:
    fleet.worker("sleepy", "w")
    job = fleet.client.submit("sleepy", "x", deadline=1.5)
    wait_for(lambda: fleet.client.status(job) is not Status.QUEUED, "the job to run")
    with pytest.raises(JobExpired):
        fleet.client.result(job, timeout=20)  # less than the 30 s for which the engine is busy with it
    assert not fleet.redis.exists(keys.inflight("sleepy"))


def test_a_failing_engine_is_tried_again_and_then_reported(fleet: Fleet) -> None:
    fleet.worker("echo", "w")
    job = fleet.client.submit("echo", "x", parameters={"flake": "bad luck"})
    for retry in range(1, 4):
        ((member, _),) = wait_for(lambda: scores(fleet.redis, keys.deferred("echo")), f"retry {retry}")
        assert fleet.client.status(job) is Status.QUEUED
        fleet.redis.zadd(keys.deferred("echo"), {member: 1}, xx=True)
        Queue(fleet.redis, fleet.settings, "echo").reap()
    with pytest.raises(JobFailed, match="EngineError: bad luck"):
        fleet.client.result(job, timeout=DEADLINE_S)
    assert not fleet.redis.exists(keys.retries("echo"), keys.inflight("echo"))


def test_a_worker_whose_engine_fails_gets_one_job_at_a_time_until_it_serves_again(fleet: Fleet) -> None:
    fleet.worker("brittle", "w")
    bad = [fleet.client.job("brittle", "x", parameters={"flake": "HTTP 500"}) for _ in range(8)]
    ids = fleet.client.submit_many(bad)
    assert all(isinstance(found, JobFailed) for _, found in fleet.client.results(ids, timeout=DEADLINE_S))
    ids = fleet.client.submit_many(fleet.client.job("brittle", f"{n}") for n in range(20))
    failing = wait_for(lambda: [one for one in heartbeat.read_all(fleet.redis) if one.failing], "its breaker to open")
    assert "requests failed, the last with: HTTP 500" in failing[0].failing
    found = succeeded(fleet.client, ids)
    assert [found[job].timing.batch_size for job in ids][:3] == [1, 1, 1]
    wait_for(lambda: not any(one.failing for one in heartbeat.read_all(fleet.redis)), "its breaker to close")


def test_jobs_of_one_tenant_that_all_fail_open_no_breaker_for_others(fleet: Fleet) -> None:
    fleet.worker("brittle", "w")
    good = fleet.client.submit("brittle", "x", tenant="good")
    assert fleet.client.result(good, timeout=DEADLINE_S).output == "x"
    bad = [fleet.client.job("brittle", "x", tenant="hostile", parameters={"flake": "HTTP 500"}) for _ in range(40)]
    ids = fleet.client.submit_many(bad)
    assert all(isinstance(found, JobFailed) for _, found in fleet.client.results(ids, timeout=DEADLINE_S))
    assert fleet.client.result(fleet.client.submit("brittle", "y", tenant="good"), timeout=DEADLINE_S).output == "y"
    assert "the breaker opens" not in fleet.log("w").read_text()


def test_failures_are_no_throughput(fleet: Fleet) -> None:
    fleet.worker("brittle", "w")
    ids = fleet.client.submit_many(fleet.client.job("brittle", "x", parameters={"flake": "HTTP 500"}) for _ in range(8))
    assert len(dict(fleet.client.results(ids, timeout=DEADLINE_S))) == 8
    beat = wait_for(lambda: next((one for one in heartbeat.read_all(fleet.redis) if one.failing), None), "its breaker")
    assert (beat.jobs_done, beat.jobs_per_s) == (0, 0.0)
    assert not fleet.redis.hexists(keys.throughput("brittle"), "jobs_per_s")


def test_a_hung_engine_is_given_up_and_its_jobs_go_elsewhere(fleet: Fleet) -> None:
    process = fleet.worker("stalling", "w")
    job = fleet.client.submit("stalling", "x", parameters={"hang": True})
    assert process.wait(DEADLINE_S) == 5
    assert "no progress for" in fleet.log("w").read_text()
    wait_for(lambda: fleet.client.status(job) is Status.QUEUED, "its last heartbeat to go")
    assert fleet.redis.llen("stalling.interactive") == 1


@pytest.mark.slow
def test_a_drain_past_its_deadline_hands_unfinished_jobs_back(
    redis: redis_py.Redis, server: Server, make_fleet: MakeFleet
) -> None:
    fleet = make_fleet(server.url, TABLES + "[scaling]\ndrain_s = 0.5\n")
    process = fleet.worker("sleepy", "w")
    job = fleet.client.submit("sleepy", "x")
    wait_for(lambda: fleet.client.status(job) is Status.RUNNING, "the job to run")
    process.terminate()
    assert process.wait(20) == 0  # less than the 30 s for which the engine is busy with it
    assert fleet.redis.llen("sleepy.interactive") == 1
    assert not fleet.redis.exists(keys.inflight("sleepy"), keys.losses("sleepy"))


@pytest.mark.slow
def test_a_second_sigterm_hurries_and_gives_everything_back(fleet: Fleet) -> None:
    process = fleet.worker("sleepy", "w")
    job = fleet.client.submit("sleepy", "x")
    wait_for(lambda: fleet.client.status(job) is Status.RUNNING, "the job to run")
    process.terminate()
    wait_for(lambda: fleet.beat("w", WorkerState.DRAINING), "the drain to begin")
    process.terminate()
    assert process.wait(20) == 0  # less than the 30 s for which the engine is busy with it
    assert fleet.redis.llen("sleepy.interactive") == 1
    assert not fleet.redis.exists(keys.inflight("sleepy"), keys.losses("sleepy"))


def test_waiting_has_an_end(fleet: Fleet) -> None:
    job = fleet.client.submit("echo", "nobody serves this")
    with pytest.raises(ResultTimeout, match="it goes on"):
        fleet.client.result(job, timeout=0.05)


def test_a_killed_worker_loses_nothing(fleet: Fleet) -> None:
    process = fleet.worker("slow", "first")
    ids = fleet.client.submit_many(fleet.client.job("slow", str(n), tier="batch") for n in range(12))
    wait_for(lambda: fleet.redis.hlen(keys.inflight("slow")) >= 4, "a batch to run")
    process.kill()
    fleet.worker("slow", "second")
    found = succeeded(fleet.client, ids)
    assert sorted(int(result.output) for result in found.values()) == list(range(12))
    assert "second" in {result.timing.worker for result in found.values()}
    assert dead(fleet, "slow") == []


def test_a_drained_worker_finishes_what_runs_gives_the_rest_back_and_exits_0(
    redis: redis_py.Redis, server: Server, make_fleet: MakeFleet, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    options = f'{{ delay_s = 1.0, journal = "{journal}" }}'
    fleet = make_fleet(server.url, f'[models.slow]\nengine = "echo"\nmax_concurrency = 4\noptions = {options}')
    process = fleet.worker("slow", "w")
    ids = fleet.client.submit_many(fleet.client.job("slow", str(n)) for n in range(20))
    wait_for(journal.exists, "a batch to be on the device")
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    assert not fleet.redis.exists(keys.inflight("slow"))
    assert fleet.beat("w", WorkerState.DRAINING) is None
    begun = len(journal.read_text().splitlines())
    finished = sum(fleet.client.status(job) is Status.SUCCEEDED for job in ids)
    assert finished == begun >= 1
    assert finished + fleet.redis.llen("slow.interactive") == 20
    assert not fleet.redis.exists(keys.losses("slow"))


def test_an_engine_that_is_lost_ends_its_worker_and_the_loss_is_counted(fleet: Fleet) -> None:
    process = fleet.worker("echo", "w")
    fleet.client.submit("echo", "x", parameters={"crash": True}, tier="batch")
    assert process.wait(DEADLINE_S) == 4
    assert "the engine of model echo is lost" in fleet.log("w").read_text()
    assert fleet.redis.hvals(keys.losses("echo")) == [b"1"]
    assert fleet.redis.llen("echo.batch") == 1


def test_an_answer_that_cannot_be_used_fails_its_job_alone(fleet: Fleet) -> None:
    process = fleet.worker("echo", "w")
    bad = fleet.client.submit("echo", "x", parameters={"garble": True})
    good = fleet.client.submit("echo", "y")
    with pytest.raises(JobFailed, match="gave an answer that cannot be used"):
        fleet.client.result(bad, timeout=DEADLINE_S)
    assert fleet.client.result(good, timeout=DEADLINE_S).output == "y"
    assert process.poll() is None


def test_a_worker_that_fails_unexpectedly_ends_at_once_and_its_jobs_count_a_loss(fleet: Fleet) -> None:
    process = fleet.worker("slow", "w")
    # The first is reported before the second has run: a worker that waits for the second ends after drain_s alone.
    fleet.client.submit("slow", "x", parameters={"derail": True}, tier="interactive")
    others = [fleet.client.job("slow", "y", tier="batch") for _ in range(6)]
    fleet.client.submit_many(others)
    assert process.wait(DEADLINE_S) != 0
    losses = fleet.redis.hvals(keys.losses("slow"))
    assert losses
    assert set(losses) == {b"1"}
    assert not fleet.redis.exists(keys.inflight("slow"))


@pytest.mark.slow
def test_a_job_that_kills_its_workers_ends_as_a_dead_letter(
    fleet: Fleet, server: Server, make_fleet: MakeFleet
) -> None:
    killer = fleet.client.submit("echo", "x", parameters={"crash": True})
    for n in range(fleet.settings.redis.max_losses):
        process = fleet.start("echo", f"victim-{n}")
        assert process.wait(DEADLINE_S) == 4
    queue = Queue(fleet.redis, fleet.settings, "echo")
    wait_for(lambda: queue.reap() and dead(fleet), "the last lease to run out")
    with pytest.raises(JobFailed, match="lost 3 workers while it ran"):
        fleet.client.result(killer, timeout=DEADLINE_S)


def test_a_model_that_cannot_be_loaded_says_so_and_exits(redis: object, server: Server, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(server.url, '[models.gone]\nengine = "embed"\nsource = "/no/such/model"')
    process = fleet.start("gone", "w")
    assert process.wait(DEADLINE_S) == 3
    assert "/no/such/model" in fleet.log("w").read_text()


def test_a_worker_of_an_unknown_model_says_which_there_are(fleet: Fleet) -> None:
    assert fleet.start("nope", "w").wait(DEADLINE_S) == 2
    assert (
        "no model 'nope' in the fleet; allowed: brittle, echo, hasty, sleepy, slow, stalling"
        in fleet.log("w").read_text()
    )


def test_redis_may_be_away_at_the_start_and_in_the_middle(own_server: Server, make_fleet: MakeFleet) -> None:
    fleet = make_fleet(own_server.url, TABLES)
    own_server.kill()
    with pytest.raises(BrokerUnavailable, match=r"submitting: Redis at redis://127\.0\.0\.1.*start it"):
        fleet.client.submit("echo", "x")
    process = fleet.start("slow", "w")
    wait_for(lambda: "Redis cannot serve now" in fleet.log("w").read_text(), "the worker to notice")
    own_server.start()
    ids = fleet.client.submit_many(fleet.client.job("slow", str(n)) for n in range(12))
    wait_for(lambda: fleet.redis.hlen(keys.inflight("slow")) > 0, "jobs to run")
    own_server.kill()
    own_server.start()
    found = succeeded(fleet.client, ids)
    assert sorted(int(result.output) for result in found.values()) == list(range(12))
    assert process.poll() is None


def test_a_worker_stopped_for_longer_than_its_lease_cannot_commit(fleet: Fleet) -> None:
    process = fleet.worker("slow", "late")
    job = fleet.client.submit("slow", "x")
    wait_for(lambda: fleet.redis.hlen(keys.inflight("slow")) == 1, "the job to run")
    os.kill(process.pid, signal.SIGSTOP)
    fleet.worker("slow", "second")
    assert fleet.client.result(job, timeout=DEADLINE_S).timing.worker == "second"
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: "lost" in fleet.log("late").read_text(), "the late worker to find its lease gone")
    assert fleet.client.result(job, timeout=DEADLINE_S).timing.worker == "second"


@pytest.mark.slow
def test_a_second_worker_shares_the_work(fleet: Fleet) -> None:
    fleet.worker("slow", "one")
    fleet.worker("slow", "two")
    ids = fleet.client.submit_many(fleet.client.job("slow", str(n)) for n in range(24))
    found = succeeded(fleet.client, ids)
    assert {result.timing.worker for result in found.values()} == {"one", "two"}


def test_a_worker_asks_for_help(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "workers", "--help"], capture_output=True, text=True, check=True)
    assert "--launched-by" in done.stdout
