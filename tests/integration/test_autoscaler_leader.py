import time

import redis as redis_py

from autoscaler.leader import Leader
from producer.contract import keys


def contenders(redis: redis_py.Redis, ttl_s: float = 30) -> tuple[Leader, Leader]:
    return Leader(redis, ttl_s), Leader(redis, ttl_s)


def test_of_two_contenders_one_leads_until_it_gives_up(redis: redis_py.Redis) -> None:
    first, second = contenders(redis)
    assert first.confirm()
    assert not second.confirm()
    assert second.holder() == first.name
    first.release()
    assert second.confirm()
    assert not first.confirm()


def test_confirming_prolongs_the_lease(redis: redis_py.Redis) -> None:
    first, _ = contenders(redis)
    first.confirm()
    redis.pexpire(keys.leader(), 1000)
    assert first.confirm()
    assert redis.pttl(keys.leader()) > 20_000


def test_a_leader_that_falls_silent_is_followed_and_harms_its_successor_no_more(
    redis: redis_py.Redis,
) -> None:
    first, second = contenders(redis, ttl_s=0.05)
    assert first.confirm()
    second.ttl_s = 30
    deadline = time.monotonic() + 10
    while not second.confirm():
        assert time.monotonic() < deadline
    assert not first.confirm()
    first.release()
    assert first.holder() == second.name


def test_the_lease_survives_a_server_that_forgot_its_scripts(redis: redis_py.Redis) -> None:
    first, second = contenders(redis)
    first.confirm()
    redis.script_flush()
    assert first.confirm()
    redis.script_flush()
    first.release()
    assert second.confirm()
