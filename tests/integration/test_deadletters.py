import json

import pytest
import redis as redis_py

from producer import Settings, keys
from scheduler import deadletters
from scheduler.deadletters import NoSuchLetter
from scheduler.queue import Queue

MESSAGE = json.dumps({"headers": {"id": "job"}}).encode()


@pytest.fixture
def queue(redis: redis_py.Redis) -> Queue:
    queue = Queue(redis, Settings(models={"m": {"engine": "echo"}}), "m")
    redis.lpush("m.batch", MESSAGE, b"other")
    for job in queue.claim(2, "a"):
        queue.bury(job.lease, f"why {job.message[:5].decode()}")
    return queue


def test_they_are_listed_newest_first_with_their_reason(redis: redis_py.Redis, queue: Queue) -> None:
    newest, oldest = deadletters.letters(redis, "m")
    assert (newest.message, newest.reason, newest.queue) == (b"other", "why other", "m.batch")
    assert deadletters.letter(redis, "m", oldest.id) == oldest
    assert abs(oldest.at - redis.time()[0]) < 60


def test_a_requeued_one_runs_as_if_for_the_first_time(redis: redis_py.Redis, queue: Queue) -> None:
    redis.set(keys.result("job"), '{"status": "FAILURE"}')
    (_, letter) = deadletters.letters(redis, "m")
    deadletters.requeue(redis, "m", letter.id)
    assert redis.get(keys.result("job")) is None
    assert [(job.message, job.losses) for job in queue.claim(9, "b")] == [(MESSAGE, 0)]
    assert [letter.message for letter in deadletters.letters(redis, "m")] == [b"other"]


def test_one_or_all_are_purged(redis: redis_py.Redis, queue: Queue) -> None:
    (newest, _) = deadletters.letters(redis, "m")
    assert deadletters.purge(redis, "m", newest.id) == 1
    assert deadletters.purge(redis, "m") == 1
    assert list(deadletters.letters(redis, "m")) == []


def test_one_that_is_not_there_says_how_to_find_them(redis: redis_py.Redis, queue: Queue) -> None:
    for act in (deadletters.letter, deadletters.requeue):
        with pytest.raises(NoSuchLetter, match="stoker dead list"):
            act(redis, "m", "1-1")
