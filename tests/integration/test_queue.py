"""The atomic steps of the queue, each against a real server."""

import hashlib
import json
from collections.abc import Callable
from typing import cast

import pytest
import redis as redis_py

from producer.contract import keys
from producer.contract.fleet.fleet_schema import Redis
from producer.contract.fleet.settings import Settings
from producer.contract.message.job import TASK
from redis_replies import entries, items, scores, text
from scheduler import dead_letters
from scheduler.lease.queue import Queue
from scheduler.lease.trials import Order
from scheduler.order.priority import longest_wait
from scheduler.queue_lengths import observe

MODEL = "m"


@pytest.fixture
def settings(server: object) -> Settings:
    return Settings(redis=Redis(lease_s=30, max_losses=2), models={MODEL: {"engine": "echo"}})


@pytest.fixture
def queue(redis: redis_py.Redis, settings: Settings) -> Queue:
    return Queue(redis, settings, MODEL)


@pytest.fixture
def expire(redis: redis_py.Redis) -> Callable[[str], None]:
    """Let a lease run out now, as if its worker had been silent for long enough."""

    def expire(lease: str) -> None:
        redis.zadd(keys.leases(MODEL), {lease: 1})

    return expire


def push(redis: redis_py.Redis, tier: str, *messages: bytes) -> None:
    for message in messages:
        redis.lpush(keys.queue(MODEL, tier), message)


def waiting(redis: redis_py.Redis, tier: str) -> list[bytes]:
    """Messages in the order in which they will be taken."""
    return items(redis, keys.queue(MODEL, tier))[::-1]


def test_claims_oldest_first_and_leases_what_it_takes(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1", b"2", b"3")
    jobs = queue.claim(2, "a")
    assert [job.message for job in jobs] == [b"1", b"2"]
    assert waiting(redis, "batch") == [b"3"]
    assert redis.hgetall(keys.inflight(MODEL)) == {job.lease.encode(): job.message for job in jobs}
    clock = redis.time()[0]
    for _, until in scores(redis, keys.leases(MODEL)):
        assert clock + 25 < until < clock + 35


def test_interactive_goes_first_and_fills_up_with_the_rest(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"b1", b"b2")
    push(redis, "interactive", b"i1")
    assert [job.message for job in queue.claim(2, "a")] == [b"i1", b"b1"]


def test_a_tier_passed_over_for_long_enough_is_served_first(
    redis: redis_py.Redis, queue: Queue, settings: Settings
) -> None:
    push(redis, "batch", b"b")
    push(redis, "interactive", b"i1", b"i2")
    assert queue.claim(1, "a")[0].message == b"i1"  # starts the clock of batch
    passed_over = 2 * longest_wait(settings.tiers["batch"], settings.tiers["interactive"])
    redis.hincrbyfloat(keys.served(MODEL), keys.queue(MODEL, "batch"), -passed_over)
    assert queue.claim(1, "b")[0].message == b"b"


def test_a_claim_is_bounded_in_bytes_but_takes_at_least_one(
    redis: redis_py.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.lease.queue.CLAIM_BYTES", 10)
    push(redis, "batch", b"x" * 20, b"y" * 4, b"z" * 4, b"w" * 4)
    assert [len(job.message) for job in queue.claim(8, "a")] == [20]
    assert [job.message[:1] for job in queue.claim(8, "b")] == [b"y", b"z"]
    assert waiting(redis, "batch") == [b"wwww"]


def test_a_key_of_the_wrong_type_is_skipped(redis: redis_py.Redis, queue: Queue) -> None:
    redis.set(keys.queue(MODEL, "interactive"), "not a list")
    push(redis, "batch", b"b")
    assert [job.message for job in queue.claim(8, "a")] == [b"b"]


def test_finishing_stores_announces_and_ends_the_lease(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1")
    (job,) = queue.claim(1, "a")
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(keys.result("id"))
        pubsub.get_message(timeout=5)
        assert queue.finish([(job.lease, "id", b'{"status": "SUCCESS"}')]) == []
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == redis.get(keys.result("id")) == b'{"status": "SUCCESS"}'
    assert redis.ttl(keys.result("id")) > 0
    assert not redis.exists(keys.inflight(MODEL), keys.leases(MODEL))


def test_the_first_final_result_wins(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1", b"2", b"3")
    first, second, third = queue.claim(3, "a")
    queue.finish([(first.lease, "id", b'{"status": "RETRY"}')])
    queue.finish([(second.lease, "id", b'{"status": "SUCCESS", "result": 1}')])
    queue.finish([(third.lease, "id", b'{"status": "SUCCESS", "result": 2}')])
    assert redis.get(keys.result("id")) == b'{"status": "SUCCESS", "result": 1}'


def test_a_job_under_the_id_of_one_that_failed_replaces_its_result(redis: redis_py.Redis, queue: Queue) -> None:
    failed, well, buried = b'{"status": "FAILURE"}', b'{"status": "SUCCESS"}', b'{"headers": {"id": "id"}}'
    push(redis, "batch", b"1", b"2", buried, b"4", b"5")
    first, second, third, fourth, fifth = queue.claim(5, "a")
    with redis.pubsub() as heard:
        heard.subscribe(keys.result("id"))
        assert heard.get_message(timeout=5)["type"] == "subscribe"
        queue.finish([(first.lease, "id", failed)])
        queue.finish([(second.lease, "id", b'{"status": "FAILURE", "result": 2}')])
        assert redis.get(keys.result("id")) == b'{"status": "FAILURE", "result": 2}'
        assert queue.bury(third.lease, "of a test")
        assert b"of a test" in cast(bytes, redis.get(keys.result("id")))
        queue.finish([(fourth.lease, "id", well)])
        queue.finish([(fifth.lease, "id", failed)])
        told = [heard.get_message(timeout=5)["data"] for _ in range(4)]
        heard.ping()
        assert heard.get_message(timeout=5)["type"] == "pong"
    assert redis.get(keys.result("id")) == told[-1] == well


def test_a_lost_lease_is_fenced(redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]) -> None:
    push(redis, "batch", b"1")
    (late,) = queue.claim(1, "a")
    expire(late.lease)
    assert queue.reap() == (1, 0)
    (again,) = queue.claim(1, "b")
    assert again.losses == 1
    assert queue.renew([late.lease]) == [late.lease]
    assert queue.release([late.lease]) == 0
    assert not queue.bury(late.lease, "late")
    assert queue.finish([(late.lease, "id", b'{"status": "SUCCESS"}')]) == [late.lease]
    assert redis.get(keys.result("id")) is None
    assert queue.finish([(again.lease, "id", b'{"status": "SUCCESS"}')]) == []
    assert redis.exists(keys.losses(MODEL)) == 0


def test_renewal_keeps_a_lease_from_the_reaper(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"1")
    (job,) = queue.claim(1, "a")
    expire(job.lease)
    assert queue.renew([job.lease]) == []
    assert queue.reap() == (0, 0)


def test_given_back_jobs_are_next_in_their_order_and_count_no_loss(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1", b"2", b"3")
    jobs = queue.claim(2, "a")
    assert queue.release([job.lease for job in jobs]) == 2
    assert waiting(redis, "batch") == [b"1", b"2", b"3"]
    assert [job.losses for job in queue.claim(3, "b")] == [0, 0, 0]


def test_too_many_losses_bury_a_job_and_answer_who_waits(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    message = json.dumps({"headers": {"id": "poison", "task": TASK}}).encode()
    push(redis, "batch", message)
    for owner, outcome in (("a", (1, 0)), ("b", (0, 1))):
        (job,) = queue.claim(1, owner)
        expire(job.lease)
        assert queue.reap() == outcome
    ((_, letter),) = entries(redis, keys.dead(MODEL))
    assert letter[b"message"] == message
    assert letter[b"reason"] == b"it lost 2 workers while it ran"
    stored = json.loads(text(redis.get(keys.result("poison"))))
    assert stored["status"] == "FAILURE"
    assert "lost 2 workers" in stored["result"]["exc_message"][0]
    assert redis.hget(keys.losses(MODEL), hashlib.sha1(message, usedforsecurity=False).hexdigest()) is None


def test_the_reaper_buries_what_it_cannot_read(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"\xff not json")
    for owner in ("a", "b"):
        (job,) = queue.claim(1, owner)
        expire(job.lease)
        queue.reap()
    assert redis.xlen(keys.dead(MODEL)) == 1


def test_arrivals_are_counted_whoever_pushed_them(redis: redis_py.Redis, queue: Queue, settings: Settings) -> None:
    push(redis, "batch", b"1", b"2", b"3")
    jobs = queue.claim(2, "a")
    assert observe(redis, settings)[MODEL].arrived == 3
    queue.release([jobs[0].lease])
    seen = observe(redis, settings)[MODEL]
    assert (seen.arrived, seen.queued, seen.inflight) == (3, 2, 1)


def test_the_oldest_age_comes_from_the_stamp_or_from_the_service_clock(
    redis: redis_py.Redis, settings: Settings
) -> None:
    now = redis.time()[0]
    push(redis, "batch", json.dumps({"headers": {"submitted_at": now - 100}}).encode())
    push(redis, "standard", b"stock")
    observe(redis, settings)  # starts the clock of the queue, as its head has no time stamp
    redis.hincrbyfloat(keys.served(MODEL), keys.queue(MODEL, "standard"), -50)
    ages = {tier.tier: tier.oldest_age_s for tier in observe(redis, settings)[MODEL].tiers}
    assert 99 < ages["batch"] < 130
    assert 49 < ages["standard"] < 80
    assert ages["interactive"] == 0


def test_a_suspect_runs_alone_and_its_neighbours_go_on(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"killer", b"innocent")
    for job in queue.claim(2, "a"):
        expire(job.lease)
    assert queue.reap() == (2, 0)  # at most two losses here, so one makes a suspect
    push(redis, "interactive", b"urgent")
    assert queue.claim(8, "busy", idle=False) == []
    (first,) = queue.claim(8, "b")
    (second,) = queue.claim(8, "c")
    assert [(job.message, job.losses, job.queue) for job in (first, second)] == [
        (b"killer", 1, "m.batch"),
        (b"innocent", 1, "m.batch"),
    ]
    assert [job.message for job in queue.claim(8, "d")] == [b"urgent"]
    expire(first.lease)
    assert queue.reap() == (0, 1)
    queue.finish([(second.lease, "id", b'{"status": "SUCCESS"}')])
    assert not redis.exists(keys.losses(MODEL))


def test_a_suspect_is_taken_before_or_after_the_others_or_not_at_all(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"killer", b"innocent")
    for job in queue.claim(2, "a"):
        expire(job.lease)
    queue.reap()
    push(redis, "batch", b"other")
    (other,) = queue.claim(8, "last", suspects=Order.LAST)
    assert other.message == b"other"
    assert queue.claim(8, "none", suspects=Order.NONE) == []
    assert queue.claim(8, "busy", idle=False, suspects=Order.LAST) == []
    assert [job.message for job in queue.claim(8, "last again", suspects=Order.LAST)] == [b"killer"]
    push(redis, "batch", b"another")
    assert [job.message for job in queue.claim(8, "first", suspects=Order.FIRST)] == [b"innocent"]
    assert [job.message for job in queue.claim(8, "busy", idle=False)] == [b"another"]


def test_the_jobs_of_a_worker_that_died_of_an_outside_cause_count_no_loss(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1", b"2", b"3")
    queue.claim(2, "m-1.12345678.0")
    (others,) = queue.claim(1, "m-1.x.12345678.0")
    assert queue.excuse("m-1") == 2
    assert [text(lease).decode() for lease in redis.hkeys(keys.inflight(MODEL))] == [others.lease]
    assert redis.zcard(keys.deferred(MODEL)) == 2
    assert not redis.exists(keys.losses(MODEL))


@pytest.mark.parametrize("retries", [0, 99])
def test_losses_that_were_counted_are_taken_back_while_there_are_retries(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None], retries: int
) -> None:
    push(redis, "batch", b"job", b"other")
    for owner in ("m-1.12345678.0", "m-2.12345678.0"):
        (job,) = queue.claim(1, owner, suspects=Order.NONE)
        expire(job.lease)  # as by a worker that ends
        queue.reap()
    assert redis.llen(keys.suspects(MODEL)) == 2
    if not retries:
        redis.hset(keys.retries(MODEL), mapping=dict.fromkeys(redis.hkeys(keys.losses(MODEL)), 99))
        assert queue.excuse("m-2", counted=True) == 0
        assert redis.llen(keys.suspects(MODEL)) == 2
        return
    assert queue.excuse("m-2") == 0
    assert queue.excuse("m-2", counted=True) == 1
    assert queue.excuse("m-2", counted=True) == 0
    assert redis.hvals(keys.losses(MODEL)) == [b"1"]
    assert [job.message for job in queue.claim(2, "m-3.12345678.0", suspects=Order.NONE)] == [b"other"]
    assert [job.message for job in queue.claim(2, "m-4.12345678.0")] == [b"job"]
    told = [text(lines) for lines in redis.hvals(keys.history(MODEL))]
    assert sum(b"lost with m-2.12345678.0:000001, of an outside cause" in lines for lines in told) == 1


def test_a_suspect_that_is_given_back_stays_one(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"suspect")
    expire(queue.claim(1, "a")[0].lease)
    queue.reap()
    (job,) = queue.claim(1, "b")
    queue.release([job.lease])
    assert queue.claim(1, "busy", idle=False) == []
    assert queue.claim(1, "c")[0].message == b"suspect"


def test_a_job_is_deferred_until_it_is_due_and_so_often_only(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1", b"2")
    for retry in range(1, 4):
        job = queue.claim(1, str(retry))[0]
        assert job.message == b"1"
        assert queue.defer(job.lease) == retry
        queue.reap()
        assert waiting(redis, "batch") == [b"2"]
        ((member, due),) = scores(redis, keys.deferred(MODEL))
        assert due > redis.time()[0]
        redis.zadd(keys.deferred(MODEL), {member: 1})
        queue.reap()
    (job,) = queue.claim(1, "last")
    assert queue.defer(job.lease) == 0
    queue.finish([(job.lease, "id", b'{"status": "FAILURE"}')])
    assert not redis.exists(keys.retries(MODEL))
    assert queue.defer(job.lease) == -1


def test_who_waits_for_a_buried_job_is_answered(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", json.dumps({"headers": {"id": "job"}}).encode(), b"no id")
    for job in queue.claim(2, "a"):
        assert queue.bury(job.lease, "no good")
    stored = json.loads(text(redis.get(keys.result("job"))))
    assert (stored["status"], stored["task_id"]) == ("FAILURE", "job")
    assert "no good" in stored["result"]["exc_message"][0]
    assert redis.xlen(keys.dead(MODEL)) == 2


def test_a_dead_letter_forgets_how_often_it_was_tried(redis: redis_py.Redis, queue: Queue) -> None:
    push(redis, "batch", b"1")
    (job,) = queue.claim(1, "a")
    assert queue.defer(job.lease) == 1
    redis.zadd(keys.deferred(MODEL), {member: 1 for member, _ in scores(redis, keys.deferred(MODEL))})
    queue.reap()
    (job,) = queue.claim(1, "b")
    assert queue.bury(job.lease, "of a test")
    assert not redis.exists(keys.retries(MODEL))


def test_a_claim_may_take_more_than_lua_hands_over_at_once(
    redis: redis_py.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(redis, "interactive", *(b"%d" % n for n in range(5000)))
    push(redis, "batch", *(b"%d" % n for n in range(5000, 10_000)))
    jobs = queue.claim(9000, "a")
    assert [int(job.message) for job in jobs] == list(range(9000))
    assert redis.hlen(keys.inflight(MODEL)) == redis.zcard(keys.leases(MODEL)) == 9000
    assert redis.llen(keys.queue(MODEL, "batch")) == 1000


def test_a_deferred_suspect_still_runs_alone(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"suspect")
    expire(queue.claim(1, "a")[0].lease)
    queue.reap()
    (job,) = queue.claim(1, "b")
    queue.defer(job.lease)
    redis.zadd(keys.deferred(MODEL), {member: 1 for member, _ in scores(redis, keys.deferred(MODEL))})
    queue.reap()
    assert queue.claim(1, "busy", idle=False) == []
    assert queue.claim(1, "c")[0].message == b"suspect"


def test_a_dead_letter_tells_who_was_lost_over_it(
    redis: redis_py.Redis, queue: Queue, expire: Callable[[str], None]
) -> None:
    push(redis, "batch", b"killer")
    for owner in ("first", "second"):
        (job,) = queue.claim(1, owner)
        expire(job.lease)
        queue.reap()
    (letter,) = dead_letters.letters(redis, MODEL)
    assert [line.split(" lost with ")[1] for line in letter.history] == ["first:000001", "second:000000"]
    assert not redis.exists(keys.history(MODEL))


@pytest.mark.parametrize(
    "head", [b'"submitted_at": 1.2.3', b'"submitted_at": 99999999999999999999', b"\xff", b'{"submitted_at": "now"}']
)
def test_no_message_can_stop_the_observation(redis: redis_py.Redis, settings: Settings, head: bytes) -> None:
    push(redis, "batch", head)
    redis.set(keys.queue(MODEL, "standard"), "not a list")
    seen = {tier.tier: tier for tier in observe(redis, settings)[MODEL].tiers}
    assert seen["batch"].length == 1
    assert seen["batch"].oldest_age_s == seen["batch"].waited_s < 60
    assert seen["standard"].length == 0


def test_a_producer_cannot_lie_itself_older(redis: redis_py.Redis, settings: Settings) -> None:
    push(redis, "batch", json.dumps({"headers": {"submitted_at": 1}}).encode())
    (_, _, batch) = observe(redis, settings)[MODEL].tiers
    assert batch.waited_s < 60 < batch.oldest_age_s
