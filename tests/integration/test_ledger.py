import hashlib
from typing import Any

import pytest
import redis as redis_py

from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import keys
from scheduler.lease.ledger import Ledger
from scheduler.lease.queue import Queue
from scheduler.lease.taker import NoTaker
from scheduler.order.preemption import LATELY_S, PACE, Room

RESULT = b'{"status": "SUCCESS"}'


@pytest.fixture
def ledger(redis: redis_py.Redis) -> Ledger:
    ledger = Ledger(Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m"))
    redis.lpush("m.batch", b"1", b"2")
    jobs = ledger.queue.claim(2, "owner")
    ledger.take(jobs)
    for n, job in enumerate(jobs):
        ledger.name(job.lease, f"job-{n}")
    return ledger


class Slots(NoTaker):
    """Has a batch that jobs join and leave."""

    capacity = slots = 4


def with_queued(redis: redis_py.Redis, server: Server, *jobs: dict[str, Any]) -> Ledger:
    """A ledger of a model with slots, and jobs queued with these arguments of ``submit``."""
    settings = Settings(redis={"url": server.url}, models={"m": {"engine": "echo"}})
    ledger = Ledger(Queue(redis, settings, "m"))
    ledger.taker = Slots()
    with Client(settings) as client:
        for job in jobs:
            client.submit("m", "x", **job)
    return ledger


def test_only_jobs_that_can_wait_may_be_preempted(redis: redis_py.Redis, server: Server) -> None:
    ledger = with_queued(redis, server, {"tier": "batch"}, {"tier": "batch", "deadline": 500}, {"tier": "standard"})
    jobs = ledger.queue.claim(3, "owner")
    ledger.take(jobs)
    batch = [job.lease for job in jobs if job.queue == "m.batch"]
    assert len(batch) == 2
    assert ledger.preemptible == batch, "also the one with a deadline of its own"
    ledger.done(batch[0], RESULT)
    assert ledger.preemptible == batch[1:]


def test_beside_others_a_job_that_can_wait_joins_when_the_last_ones_prompt_is_read_and_after_a_pause(
    redis: redis_py.Redis, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = with_queued(redis, server, {"tier": "batch"}, {"tier": "batch"}, {"tier": "standard"})
    now = 1000.0
    monkeypatch.setattr("scheduler.lease.ledger.time.monotonic", lambda: now)
    jobs = ledger.queue.claim(3, "owner")
    other, *batch = sorted((job for job in jobs), key=lambda job: job.queue != "m.standard")
    ledger.take([other, batch[0]])
    assert ledger.room.of_tier(preemptible=True) == 0, "its prompt is being read"
    assert "m.batch" not in ledger.open_queues
    assert ledger.prefilled(other.lease, 9.0) == 0.0, "of others nothing is said"
    assert ledger.prefilled(batch[0].lease, 0.5) == pytest.approx(PACE * 0.5)
    assert ledger.room.of_tier(preemptible=True) == 0, "others have waited for it"
    now += PACE * 0.5
    assert ledger.room.of_tier(preemptible=True) == 1
    ledger.take([batch[1]])
    ledger.release([batch[1].lease])
    assert ledger.room.of_tier(preemptible=True) == 1, "it was given back unread"
    ledger.done(other.lease)
    now += LATELY_S
    assert ledger.room.of_tier(preemptible=True) == Slots.slots - 1, "no job of another tier waits for its prompts"


def test_the_pause_is_shorter_the_less_of_its_target_the_last_claimed_queue_had_left(
    redis: redis_py.Redis, server: Server
) -> None:
    ledger = with_queued(redis, server, {"tier": "batch"})
    ledger.queue.load()
    filled = redis.time()[0] - 450.0  # of the 600 s that are the target
    redis.hset(keys.waiting("m"), keys.queue("m", "batch"), str(filled))
    claim = Queue.read_claim(redis.execute_command(*ledger.queue.claim_command(Room.of(1), "owner")))
    ledger.take(claim.jobs, claim.overdue, claim.patience)
    assert claim.patience == pytest.approx(0.5, abs=0.05)
    ledger.take([])  # a claim for other tiers, meanwhile
    assert ledger.prefilled(claim.jobs[0].lease, 0.5) == pytest.approx(PACE * claim.patience * 0.5)


def test_a_batch_job_that_was_taken_overdue_makes_no_other_batch_job_wait(
    redis: redis_py.Redis, server: Server
) -> None:
    ledger = with_queued(redis, server, {"tier": "batch"})
    [late] = ledger.queue.claim(1, "owner")
    ledger.take([late], overdue=True)
    assert ledger.preemptible == []
    assert ledger.room.of_tier(preemptible=True) == Slots.slots - 1


def test_others_wait_for_suspects_no_more_than_a_tenth_of_the_time(
    redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("scheduler.lease.ledger.time.monotonic", lambda: now)
    ledger = Ledger(Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m"))
    ledger.taker = Slots()
    ledger.queue.load()
    redis.lpush(keys.suspects("m"), *(f"m.batch|{n}" for n in range(64)))
    redis.hset(
        keys.losses("m"), mapping={hashlib.sha1(b"%d" % n, usedforsecurity=False).hexdigest(): 2 for n in range(64)}
    )
    redis.lpush("m.interactive", *range(100, 2100))
    served = tried = 0
    while tried < 3:  # each claim runs for a second, whatever it took
        claim = ledger.queue.read_claim(redis.execute_command(*ledger.claim_command()))
        empties = ledger.empties(claim)
        ledger.take(claim.jobs)
        assert empties == (not claim.jobs)
        suspects = [job for job in claim.jobs if job.losses]
        assert len(claim.jobs) == 1 or not suspects, "it runs alone"
        tried, served = tried + len(suspects), served + (not suspects)
        now += 1.0
        for lease in list(ledger.held):
            ledger.done(lease)
    assert served >= 9 * (tried - 1)
    redis.delete("m.interactive")
    now += 9.0
    claim = ledger.queue.read_claim(redis.execute_command(*ledger.claim_command()))
    assert [job.losses for job in claim.jobs] == [2], "there is nothing else to run"


def test_a_result_is_written_with_its_lease_by_the_next_flush(redis: redis_py.Redis, ledger: Ledger) -> None:
    lease, _ = ledger.held
    ledger.done(lease, RESULT)
    assert redis.get(keys.result("job-0")) is None
    assert redis.hexists(keys.inflight("m"), lease)
    ledger.flush()
    assert not redis.hexists(keys.inflight("m"), lease)
    assert redis.get(keys.result("job-0")) == RESULT
    assert list(ledger.held.values()) == ["job-1"]


def test_what_is_ended_outlives_an_outage(
    redis: redis_py.Redis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise redis_py.ConnectionError("gone")

    finished, given_back = ledger.held
    ledger.done(finished, RESULT)
    ledger.release([given_back])
    with monkeypatch.context() as outage:
        outage.setattr(ledger.queue, "finish", away)
        with pytest.raises(redis_py.ConnectionError):
            ledger.flush()
    ledger.flush()
    assert redis.get(keys.result("job-0")) == RESULT
    assert redis.lrange("m.batch", 0, -1) == [b"2"]


def test_what_is_not_held_cannot_be_ended(redis: redis_py.Redis, ledger: Ledger) -> None:
    lease, other = ledger.held
    ledger.release([lease, other])
    for act in (ledger.done, lambda lease: ledger.release([lease]), lambda lease: ledger.abandon([lease])):
        act(lease)
    ledger.done("nobody's lease", RESULT)
    ledger.flush()
    assert redis.lrange("m.batch", 0, -1) == [b"2", b"1"]
    assert not redis.keys("celery-task-meta-*")
