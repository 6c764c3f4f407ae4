"""Batch jobs give way to interactive ones: in the claim script, and in a real worker with a real server behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine.server import Server
from processes import DEADLINE_S, Fleet, succeeded, wait_for
from producer import Settings, Status
from producer.contract import keys
from scheduler.lease.queue import Claim, Queue
from scheduler.order.preemption import GRACE, Room

STUB = str(Path(__file__).parents[1] / "openai_stub.py")
SLOTS, WORDS = 6, 40
TABLES = f"""
[models.stub]
engine = "openai"
max_concurrency = {SLOTS}
options = {{ command = ["{sys.executable}", "{STUB}", "--port", "{{port}}", "--token-s", "0.1"] }}
"""
FLEET = Settings(
    models={"m": {"engine": "echo", "tiers": ("interactive", "batch")}},
    tiers={
        "interactive": {"target_wait_s": 1000, "weight": 4},
        "batch": {"target_wait_s": 6000, "weight": 1, "preemptible": True},
    },
)
_owners = count()


@pytest.fixture
def queue(redis: redis_py.Redis) -> Queue:
    queue = Queue(redis, FLEET, "m")
    queue.load()
    return queue


def take(queue: Queue, room: Room) -> Claim:
    command = queue.claim_command(room, f"w.{next(_owners)}")
    return queue.read_claim(queue.redis.execute_command(*command))


def passed_over(redis: redis_py.Redis, tier: str, seconds: float) -> None:
    """As if the queue had been looked at first so long ago, and not been served since."""
    at = f"{redis.time()[0] - seconds:.6f}"
    for key in (keys.waiting("m"), keys.served("m")):
        redis.hset(key, keys.queue("m", tier), at)


def test_others_take_held_slots_only_after_their_grace(redis: redis_py.Redis, queue: Queue) -> None:
    redis.lpush("m.interactive", "1", "2", "3")
    early = take(queue, Room(1, 0, 5))
    assert [job.message for job in early.jobs] == [b"1"], "what is free is taken at once"
    assert early.look_again_s == pytest.approx(GRACE * 1000, rel=0.1)
    passed_over(redis, "interactive", GRACE * 1000 + 1)
    late = take(queue, Room(0, 0, 1))
    assert [job.message for job in late.jobs] == [b"2"]
    assert late.look_again_s is None


def test_what_a_batch_tier_may_have_is_not_for_it_alone(redis: redis_py.Redis, queue: Queue) -> None:
    redis.lpush("m.interactive", "i")
    redis.lpush("m.batch", "a", "b", "c")
    assert [job.message for job in take(queue, Room(4, 2)).jobs] == [b"i", b"a"]
    assert take(queue, Room(3, 0)).jobs == []


def test_a_batch_queue_was_served_when_a_job_ended_or_was_taken_overdue(redis: redis_py.Redis, queue: Queue) -> None:
    def served() -> float:
        return float(redis.hget(keys.served("m"), "m.batch") or 0)

    redis.lpush("m.batch", "a", "b", "c", "d")
    passed_over(redis, "batch", 100)
    before = served()
    taken = take(queue, Room.of(1))
    assert not taken.overdue
    assert served() == before, "it may come back"
    queue.finish([(taken.jobs[0].lease, "id", b"")])
    assert served() == pytest.approx(before + 100, abs=5)
    passed_over(redis, "batch", 6001)
    assert take(queue, Room.of(1)).overdue
    assert served() == pytest.approx(before + 100, abs=5)


def test_a_batch_job_that_is_preempted_again_and_again_is_overdue_in_the_end(
    redis: redis_py.Redis, queue: Queue
) -> None:
    redis.lpush("m.batch", "alone")
    assert take(queue, Room.of(0)).jobs == []
    overdue = []
    for _ in range(7):
        passed_over(redis, "batch", passed_over_s(redis, "batch") + 900)
        taken = take(queue, Room.of(1))
        overdue.append(taken.overdue)
        queue.release([job.lease for job in taken.jobs])
    assert overdue == [False] * 6 + [True]


def passed_over_s(redis: redis_py.Redis, tier: str) -> float:
    """How long the queue has been passed over."""
    return redis.time()[0] - float(redis.hget(keys.served("m"), keys.queue("m", tier)) or redis.time()[0])


@pytest.mark.parametrize("leave", ["finish", "bury"])
def test_a_batch_queue_whose_job_has_left_for_good_begins_anew(redis: redis_py.Redis, queue: Queue, leave: str) -> None:
    redis.lpush("m.batch", "a", "b")
    passed_over(redis, "batch", 100)
    first, second = take(queue, Room.of(2)).jobs
    if leave == "finish":
        queue.finish([(first.lease, "id", b"")])
    else:
        queue.bury(first.lease, "broken")
    queue.release([second.lease])
    assert take(queue, Room.of(0)).jobs == []
    assert passed_over_s(redis, "batch") == pytest.approx(0, abs=5)


@pytest.fixture
def fleet(redis: redis_py.Redis, server: Server, make_fleet: Callable[[str, str], Fleet]) -> Fleet:
    return make_fleet(server.url, TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("deadline", [None, 500], ids=["any time", "by a deadline"])
def test_interactive_jobs_take_the_youngest_batch_jobs_slots_and_all_come_to_their_end(
    fleet: Fleet, deadline: int | None
) -> None:
    fleet.worker("stub", "w")
    client, words = fleet.client, {"max_new_tokens": WORDS}
    batch = [client.submit("stub", f"{n}", tier="batch", parameters=words, deadline=deadline) for n in range(SLOTS)]
    wait_for(lambda: fleet.redis.hlen(keys.inflight("stub")) == SLOTS, "all slots to be taken")
    urgent = [client.submit("stub", "now", tier="interactive", parameters={"max_new_tokens": 1}) for _ in range(2)]
    for job in urgent:
        assert client.result(job, timeout=DEADLINE_S).output["text"] == " w0"
    assert all(client.status(job) is not Status.SUCCEEDED for job in batch), "they did not wait for one of these"
    found = succeeded(client, batch)
    assert {len(result.output["text"].split()) for result in found.values()} == {WORDS}
    assert fleet.redis.hlen(keys.losses("stub")) == 0
    preempted = [line for line in fleet.log("w").read_text().splitlines() if "is preempted" in line]
    assert {job for job in batch if any(job in line for line in preempted)} == set(batch[-2:])


def test_batch_jobs_join_a_worker_that_holds_others_one_after_the_other(fleet: Fleet) -> None:
    fleet.worker("stub", "w")
    client = fleet.client
    held = client.submit("stub", "first", tier="interactive", parameters={"max_new_tokens": 10 * WORDS})
    wait_for(lambda: client.status(held) is Status.RUNNING, "it to run")
    batch = [client.submit("stub", f"file {n}", tier="batch", parameters={"max_new_tokens": WORDS}) for n in range(4)]
    wait_for(lambda: fleet.redis.hlen(keys.inflight("stub")) == 1 + len(batch), "all to have joined")
    assert all(client.status(job) is not Status.SUCCEEDED for job in batch), "none waited for another's end"
    client.cancel(held)


def test_with_a_tenants_lane_as_well(fleet: Fleet) -> None:
    fleet.worker("stub", "w")
    client = fleet.client
    batch = client.submit_many(
        client.job("stub", "file", tier="batch", tenant="acme", parameters={"max_new_tokens": WORDS})
        for _ in range(2 * SLOTS)
    )
    wait_for(lambda: fleet.redis.hlen(keys.inflight("stub")) == SLOTS, "all slots to be taken")
    job = client.submit("stub", "now", tier="interactive", tenant="other", parameters={"max_new_tokens": 1})
    assert client.result(job, timeout=DEADLINE_S).output["text"] == " w0"
    assert all(client.status(other) is not Status.SUCCEEDED for other in batch)
