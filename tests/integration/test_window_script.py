"""The window's rule is written twice, in Python for whoever plans and in Lua for the queues: both say the same."""

import math
import time

import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.machine.server import Server
from producer import Client, Job, Settings
from producer.contract import keys
from producer.contract.server.lua import script
from producer.submission import SUBMIT_LUA, arguments, plan
from scheduler.lease.queue import Queue
from scheduler.order.preemption import Room
from scheduler.window.window import HoldLimits, TierQueue, look_again

RULE = (
    script("scheduler.window", "window.lua")
    + """
local n = tonumber
local window = { full = n(ARGV[1]), busy = n(ARGV[2]), run = n(ARGV[3]), per_job = n(ARGV[4]) }
local tiers = {}
for at = 5, #ARGV, 4 do
  tiers[#tiers + 1] = {
    jobs = tonumber(ARGV[at]), hold = tonumber(ARGV[at + 1]), waited = tonumber(ARGV[at + 2]),
    deadline = function() return tonumber(ARGV[at + 3]) end,
  }
end
return string.format('%.9f', math.min(look_again(window, tiers), 1e9))
"""
)
SECONDS = st.floats(0, 10)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 20),
    SECONDS,
    SECONDS,
    SECONDS,
    st.lists(st.tuples(st.integers(0, 8), SECONDS, SECONDS, st.floats(-1, 10) | st.just(1e9)), min_size=1, max_size=3),
)
def test_lua_and_python_say_the_same(
    redis: redis_py.Redis,
    full: int,
    busy_s: float,
    run_s: float,
    per_job_s: float,
    tiers: list[tuple[int, float, float, float]],
) -> None:
    hold = HoldLimits(full, tuple(hold_s for _, hold_s, _, _ in tiers), busy_s, run_s, per_job_s)
    python = look_again(hold, [TierQueue(jobs, waited, deadline) for jobs, _, waited, deadline in tiers])
    arguments = [full, busy_s, run_s, per_job_s, *(value for tier in tiers for value in tier)]
    lua = float(redis.eval(RULE, 0, *arguments))
    assert lua == pytest.approx(min(python, 1e9), abs=1e-6)


FLEET = Settings(models={"m": {"engine": "echo", "tiers": ["interactive", "batch"]}})


@pytest.fixture
def queue(redis: redis_py.Redis) -> Queue:
    return Queue(redis, FLEET, "m")


def claim(queue: Queue, hold: HoldLimits, room: int = 8) -> tuple[int, float | None]:
    queue.load()
    command = queue.claim_command(Room.of(room), f"w.{time.time_ns()}", True, hold)
    found = queue.read_claim(queue.redis.execute_command(*command))
    return len(found.jobs), found.look_again_s


def push(queue: Queue, tier: str = "interactive", **fields: object) -> None:
    _, (push,) = plan([Job(model="m", tier=tier, input="x", **fields)], FLEET)
    queue.redis.register_script(SUBMIT_LUA)(*arguments(push, FLEET))


def test_jobs_are_held_in_redis_until_a_batch_is_due(queue: Queue) -> None:
    hold = HoldLimits(full=3, hold_s=(30.0, 60.0), per_job_s=100.0)
    push(queue)
    taken, look_again_s = claim(queue, hold)
    assert taken == 0
    assert look_again_s is not None
    assert 0 < look_again_s <= 30
    assert queue.redis.llen("m.interactive") == 1
    push(queue, "batch")
    push(queue, "batch")
    assert claim(queue, hold) == (3, None), "a full batch never waits, over all tiers"


def test_what_was_held_long_enough_is_due(queue: Queue, redis: redis_py.Redis) -> None:
    push(queue)
    redis.hset(keys.waiting("m"), "m.interactive", f"{redis.time()[0] - 31}")
    assert claim(queue, HoldLimits(full=3, hold_s=(30.0, 60.0)))[0] == 1
    assert not redis.exists(keys.waiting("m")), "the next one waits from when it comes"


def test_a_deadline_of_its_own_is_heeded(queue: Queue) -> None:
    hold = HoldLimits(full=9, hold_s=(30.0, 60.0), run_s=2.0, per_job_s=100.0)
    push(queue, "batch", deadline=f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() + 7))}+00:00")
    taken, look_again_s = claim(queue, hold)
    assert taken == 0
    assert look_again_s is not None
    assert look_again_s <= 5
    push(queue, "batch", deadline=f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() + 1))}+00:00")
    assert claim(queue, hold)[0] == 2


def test_while_the_device_is_busy_only_a_full_batch_is_due(queue: Queue) -> None:
    push(queue)
    taken, look_again_s = claim(queue, HoldLimits(full=2, hold_s=(0.0, 0.0), busy_s=5.0, per_job_s=math.inf))
    assert taken == 0
    assert look_again_s is not None
    assert 0 < look_again_s <= 5
    push(queue)
    assert claim(queue, HoldLimits(full=2, hold_s=(0.0, 0.0), busy_s=5.0))[0] == 2


def test_a_submission_says_since_when_its_queue_is_not_empty(redis: redis_py.Redis, server: Server) -> None:
    fleet = Settings(redis={"url": server.url}, models={"m": {"engine": "echo"}})
    with Client(fleet) as client:
        client.submit("m", "x")
        first = redis.hget(keys.waiting("m"), "m.interactive")
        assert first is not None
        assert abs(float(first) - redis.time()[0]) < 5
        client.submit("m", "x")
        assert redis.hget(keys.waiting("m"), "m.interactive") == first
