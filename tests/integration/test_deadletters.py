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
