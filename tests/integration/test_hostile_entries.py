"""Whatever a producer may write, no claim fails: it is counted again, or becomes a dead letter with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from deploy import acl
from deploy.machine.server import Server
from processes import Fleet, wait_for
from producer import Client, Settings
from producer.contract import keys
from scheduler import dead_letters
from scheduler.lease.queue import Claimed, Queue
from scheduler.queue_lengths import observe

FLEET = '[models.m]\nengine = "echo"\ntiers = ["interactive", "batch"]\n'
PLAIN, LANE, DATED = keys.queue("m", "batch"), keys.lane("m", "batch", "bob"), keys.dated("m", "batch", "bob")
COUNT = f"jobs:{PLAIN}"


@pytest.fixture
def settings(redis: redis_py.Redis, server: Server, tmp_path: Path) -> Settings:
    (tmp_path / "fleet.toml").write_text(f'[redis]\nurl = "{server.url}"\n{FLEET}')
    return Settings.load(tmp_path / "fleet.toml")


@pytest.fixture
def hostile(redis: redis_py.Redis, server: Server, settings: Settings) -> Iterator[redis_py.Redis]:
    """A client with a producer's rights."""
    redis.execute_command("ACL", "SETUSER", "hostile", "reset", "on", ">x", *acl.rules("producer", settings))
    with redis_py.Redis.from_url(server.url.replace("redis://", "redis://hostile:x@")) as client:
        yield client
    redis.execute_command("ACL", "DELUSER", "hostile")


@pytest.fixture
def bob(settings: Settings, hostile: redis_py.Redis, server: Server) -> Iterator[Client]:
    """A client of another tenant's backend, under a producer's rules like all of them."""
    assert hostile.ping()
    url = server.url.replace("redis://", "redis://hostile:x@")
    with Client(settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})) as client:
        yield client


@pytest.fixture
def queue(redis: redis_py.Redis, settings: Settings) -> Queue:
    return Queue(redis, settings, "m")


def drained(queue: Queue) -> list[Claimed]:
    """All jobs that claims find, in their order; each is ended."""
    found: list[Claimed] = []
    for turn in range(100):
        jobs = queue.claim(4, f"w.{turn}")
        if not jobs:
            return found
        found += jobs
        queue.finish([(job.lease, f"id-{turn}-{n}", b"") for n, job in enumerate(jobs)])
    raise AssertionError("claims find jobs without end")


def _id(job: Claimed) -> str:
    return str(json.loads(job.message)["headers"]["id"]) if b'"headers"' in job.message else ""


Attack = Callable[[redis_py.Redis], object]
BEYOND = 2**63 - 1
ATTACKS: dict[str, Attack] = {
    "since when it waits is no number": lambda r: (r.lpush(PLAIN, "x"), r.hset(keys.waiting("m"), PLAIN, "x")),
    "since when it waits is not a number": lambda r: (r.lpush(PLAIN, "x"), r.hset(keys.waiting("m"), PLAIN, "nan")),
    "it waits since for ever": lambda r: (r.lpush(PLAIN, "x"), r.hset(keys.waiting("m"), PLAIN, "-inf")),
    "a lane's head is no entry": lambda r: (r.lpush(LANE, "x"), r.zadd(keys.due("m", "batch"), {"bob": 1})),
    "a lane's head is empty": lambda r: r.lpush(LANE, "", "|", "!" * 18, "9" * 17 + "!"),
    "a listed entry says that it is dated": lambda r: r.lpush(LANE, "x" * 17 + "!message", "9" * 10 + ".000000!{}"),
    "a dated entry is no entry": lambda r: r.zadd(DATED, {"x": 5, "": 6, "\0": float("-inf"), "|": float("inf")}),
    "a dated entry is due late by its text and early by its score": lambda r: (
        r.zadd(DATED, {"9999999999.999999!late": 0}),
        r.zadd(keys.due("m", "batch"), {"bob": 0}),
    ),
    "dated jobs are told of that are not there": lambda r: r.zadd(
        keys.due("m", "batch"), {"nobody": float("-inf"), "\0:m": 1, "a:b:c": 2, "bob": float("inf")}
    ),
    "more jobs are counted than there are": lambda r: r.hincrby(keys.lanes("m"), COUNT, 10**9),
    "fewer jobs are counted than there are": lambda r: r.hincrby(keys.lanes("m"), COUNT, -(10**9)),
    "so many jobs are counted that no more can be": lambda r: (
        r.hincrby(keys.lanes("m"), COUNT, -5),
        r.hincrby(keys.lanes("m"), COUNT, BEYOND),
    ),
    "so few jobs are counted that no fewer can be": lambda r: (
        r.hincrby(keys.lanes("m"), COUNT, -5),
        r.hincrby(keys.lanes("m"), COUNT, -BEYOND),
    ),
    "queues are counted that are none": lambda r: [
        r.hincrby(keys.lanes("m"), f"jobs:{name}", 7) for name in ("", "x", "m", ".", "m.nosuch", "other.batch")
    ],
    "what jobs make on average is made up": lambda r: [
        r.hincrby(keys.lanes("m"), name, 10**18) for name in ("output", f"left:{PLAIN}", f"dated:{PLAIN}")
    ],
    "tenants wait that cannot be": lambda r: r.sadd(
        keys.entrants("m", "batch"), "|", "a/b", "a|b", b"\xff", "", "x" * 10_000, "default", "nobody", "m:x"
    ),
    "workers are rung for": lambda r: r.lpush(keys.wake("m", "batch"), *"123456789"),
    "cancellations are made up": lambda r: r.zadd(keys.cancelled(), {b"\xff": 1e18, b"": float("inf"), b"x" * 9999: 1}),
}


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_claim_fails_whatever_a_producer_writes(
    queue: Queue, hostile: redis_py.Redis, bob: Client, attack: Attack, dated: bool
) -> None:
    more: dict[str, Any] = {"deadline": 5} if dated else {}
    ids = bob.submit_many(bob.job("m", "secret", tier="batch", tenant="bob", **more) for _ in range(5))
    attack(hostile)
    claimed = queue.claim(3, "w.back")
    ids += bob.submit_many(bob.job("m", "secret", tier="batch", tenant="carol", **more) for _ in range(5))
    queue.release([job.lease for job in claimed])  # whatever it is, it goes back to its place
    queue.recount()
    assert sorted(found for job in drained(queue) if (found := _id(job))) == sorted(ids)  # each once


def test_jobs_are_counted_again_by_the_next_claim(
    queue: Queue, redis: redis_py.Redis, hostile: redis_py.Redis, bob: Client, settings: Settings
) -> None:
    bob.submit_many(bob.job("m", "x", tier="batch", tenant=name) for name in ("bob", "carol") for _ in range(5))
    for wrong in (10**9, -(10**9)):
        hostile.hincrby(keys.lanes("m"), COUNT, wrong)
        (job,) = queue.claim(1, f"w.{wrong}")
        queue.release([job.lease])
        assert redis.hget(keys.lanes("m"), COUNT) == b"10"
    hostile.hincrby(keys.lanes("m"), COUNT, 10**9)
    queue.recount()  # as in each round of the autoscaler
    assert observe(redis, settings)["m"].queued == 10


def test_a_producer_takes_nobody_out_of_turn(hostile: redis_py.Redis, bob: Client) -> None:
    bob.submit("m", "x", tier="batch", tenant="bob")
    for command in (
        ("ZREM", keys.counters("m", "batch"), "bob"),
        ("ZADD", keys.counters("m", "batch"), "1e300", "bob"),
        ("ZRANGE", keys.counters("m", "batch"), "0", "-1"),
        ("ZADD", keys.departed("m", "batch"), "1e300", "bob"),
        ("SREM", keys.entrants("m", "batch"), "bob"),
        ("SMEMBERS", keys.entrants("m", "batch")),
        ("LINDEX", LANE, "0"),
        ("LINDEX", PLAIN, "0"),
    ):
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            hostile.execute_command(*command)


def test_a_malformed_head_of_a_lane_becomes_a_dead_letter(
    make_fleet: Callable[[str, str], Fleet], server: Server, redis: redis_py.Redis, hostile: redis_py.Redis, bob: Client
) -> None:
    fleet = make_fleet(server.url, FLEET)
    first = bob.submit("m", "before", tenant="bob", tier="batch")
    hostile.lpush(LANE, "no entry", "")
    hostile.zadd(DATED, {"none either": 0, "1234567890.000000!{": 1})
    hostile.lpush(PLAIN, "rubbish")
    hostile.zadd(keys.due("m", "batch"), {"bob": 0})
    fleet.worker("m", "w-1")
    last = bob.submit("m", "after", tenant="bob", tier="batch")
    assert bob.result(first, 60).output == "before"
    assert bob.result(last, 60).output == "after"
    wait_for(lambda: not observe(redis, bob.settings)["m"].queued, "the rest")
    letters = wait_for(lambda: list(dead_letters.letters(redis, "m")), "the dead letters")
    messages = [b"", b"no entry", b"none either", b"rubbish", b"{"]
    assert sorted(letter.message for letter in letters) == messages
    assert all(letter.reason for letter in letters)
