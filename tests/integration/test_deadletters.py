import json

import pytest
import redis as redis_py

from producer import Settings
from producer.contract import keys
from scheduler import dead_letters
from scheduler.dead_letters import NoSuchLetter
from scheduler.lease.queue import Queue

MESSAGE = json.dumps({"headers": {"id": "job"}}).encode()


@pytest.fixture
def queue(redis: redis_py.Redis) -> Queue:
    queue = Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m")
    redis.lpush("m.batch", MESSAGE, b"other")
    for job in queue.claim(2, "a"):
        queue.bury(job.lease, f"why {job.message[:5].decode()}")
    return queue


def test_they_are_listed_newest_first_with_their_reason(redis: redis_py.Redis, queue: Queue) -> None:
    newest, oldest = dead_letters.letters(redis, "m")
    assert (newest.message, newest.reason, newest.queue) == (b"other", "why other", "m.batch")
    assert dead_letters.letter(redis, "m", oldest.id) == oldest
    assert abs(oldest.at - redis.time()[0]) < 60


def test_a_requeued_one_runs_as_if_for_the_first_time(redis: redis_py.Redis, queue: Queue) -> None:
    redis.set(keys.result("job"), '{"status": "FAILURE"}')
    (_, letter) = dead_letters.letters(redis, "m")
    dead_letters.requeue(redis, "m", letter.id)
    assert redis.get(keys.result("job")) is None
    assert [(job.message, job.losses) for job in queue.claim(9, "b")] == [(MESSAGE, 0)]
    assert [letter.message for letter in dead_letters.letters(redis, "m")] == [b"other"]


def test_one_or_all_are_purged(redis: redis_py.Redis, queue: Queue) -> None:
    (newest, _) = dead_letters.letters(redis, "m")
    assert dead_letters.purge(redis, "m", newest.id) == 1
    assert dead_letters.purge(redis, "m") == 1
    assert list(dead_letters.letters(redis, "m")) == []


def test_one_that_is_not_there_says_how_to_find_them(redis: redis_py.Redis, queue: Queue) -> None:
    for act in (dead_letters.letter, dead_letters.requeue):
        with pytest.raises(NoSuchLetter, match="stoker dead list"):
            act(redis, "m", "1-1")


def bury_of(redis: redis_py.Redis, queue: Queue, tenant: str, message: bytes) -> None:
    redis.lpush(keys.lane("m", "batch", tenant), b"0000000001.000000|" + message)
    redis.zadd(keys.counters("m", "batch"), {tenant: 0})
    redis.hincrby(keys.lanes("m"), "jobs:m.batch", 1)
    (job,) = queue.claim(1, "a")
    assert queue.bury(job.lease, "rubbish")


def test_the_rubbish_of_one_tenant_has_a_bound_and_pushes_out_nobodys(redis: redis_py.Redis) -> None:
    most = 64 * 1024
    settings = Settings(models={"m": {"engine": "echo", "tiers": ["batch"]}}, redis={"dead_letter_bytes": most})
    queue = Queue(redis, settings, "m")
    bury_of(redis, queue, "bob", b"kept")
    for number in range(100):
        bury_of(redis, queue, "alice", b"%04d" % number + b"x" * 4000)
    messages = [letter.message for letter in dead_letters.letters(redis, "m")]
    assert messages[-1] == b"kept"
    assert messages[0].startswith(b"0099"), "the newest of its own are kept"
    kept = sum(map(len, messages[:-1]))
    assert most / 4 < kept <= most / 2
    sums = {name: int(value) for name, value in redis.hgetall(keys.letter_bytes("m")).items()}
    assert sums[b""] == sums[b"alice"] + sums[b"bob"] <= most
    assert redis.zcard(keys.letter_sizes("m")) == len(messages)
    dead_letters.purge(redis, "m")
    assert not redis.exists(keys.letter_bytes("m"), keys.letter_sizes("m"))


def test_a_letter_that_is_put_back_or_purged_leaves_its_bytes_to_others(redis: redis_py.Redis) -> None:
    queue = Queue(redis, Settings(models={"m": {"engine": "echo", "tiers": ["batch"]}}), "m")
    for tenant in ("alice", "bob"):
        bury_of(redis, queue, tenant, b"x" * 1000)
    newest, oldest = dead_letters.letters(redis, "m")
    dead_letters.requeue(redis, "m", oldest.id)
    sums = redis.hgetall(keys.letter_bytes("m"))
    assert sums[b"bob"] == sums[b""]
    assert b"alice" not in sums
    assert dead_letters.purge(redis, "m", newest.id) == 1
    assert not redis.exists(keys.letter_bytes("m"), keys.letter_sizes("m"))


def test_of_a_message_that_is_larger_than_all_the_first_is_kept(redis: redis_py.Redis) -> None:
    settings = Settings(models={"m": {"engine": "echo", "tiers": ["batch"]}}, redis={"dead_letter_bytes": 8192})
    bury_of(redis, Queue(redis, settings, "m"), "alice", b"y" * 100_000)
    (letter,) = dead_letters.letters(redis, "m")
    assert letter.message == b"y" * 1024
    assert letter.reason == "rubbish (of its 100000 bytes only the first are kept)"


def test_letters_go_when_they_are_old(redis: redis_py.Redis) -> None:
    settings = Settings(models={"m": {"engine": "echo", "tiers": ["batch"]}}, redis={"dead_letter_ttl_s": 100})
    queue = Queue(redis, settings, "m")
    old_ms = (redis.time()[0] - 101) * 1000
    fields = ["queue", "m.batch", "place", "m.batch/alice", "reason", "r", "losses", "0", "message", "old"]
    redis.execute_command("XADD", keys.dead("m"), f"{old_ms}-0", *fields)
    redis.zadd(keys.letter_sizes("m"), {f"alice|{old_ms}-0|259": 0})
    redis.hset(keys.letter_bytes("m"), mapping={"alice": 259, "": 259})
    bury_of(redis, queue, "bob", b"new")
    queue.reap()
    assert [letter.message for letter in dead_letters.letters(redis, "m")] == [b"new"]
    assert redis.hkeys(keys.letter_bytes("m")) != [b"alice"]
    assert redis.zcard(keys.letter_sizes("m")) == 1
