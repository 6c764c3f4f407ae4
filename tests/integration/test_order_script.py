"""The order of jobs is written twice, in Python for the simulator and in Lua for the queues: both say the same.

And what only the script does: quotas, and what a job that was taken has really cost.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import unquote

import pytest
import redis as redis_py
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from producer import Client, Job, QueueFull, Settings
from producer.contract import keys
from producer.contract.errors import QuotaExceeded
from producer.contract.fleet_schema import Limits
from producer.contract.tenants import DEFAULT
from producer.submission import SUBMIT_LUA, arguments, plan
from scheduler.lease.queue import Claimed, Queue
from scheduler.order import fairness
from scheduler.order.fairness import Counters
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.order.priority import rank
from scheduler.queue_lengths import observe

TIERS = ("interactive", "batch")
WEIGHTS = {"heavy": 3.0, "light": 0.5}
TENANTS = ("heavy", "light", "plain", "odd / name|%", DEFAULT)
FLEET = Settings(
    models={"m": {"engine": "echo", "tiers": TIERS}},
    tenants={name: {"weight": weight} for name, weight in WEIGHTS.items()},
)


class OrderMachine(RuleBasedStateMachine):
    """The same jobs to the queues in Redis and to the model. All comes at one moment, as the model has it."""

    def __init__(self, redis: redis_py.Redis) -> None:
        super().__init__()
        redis.flushall()
        self.redis: Any = redis
        self.queue = Queue(redis, FLEET, "m")
        self.queue.load()
        self._submit = redis.register_script(SUBMIT_LUA)
        self._numbers = count()
        self.model = {
            tier: Lanes[str](rank(FLEET.tiers[tier]), WEIGHTS, FLEET.tiers[tier].preemptible) for tier in TIERS
        }
        self.held: list[tuple[Claimed, QueuedJob[str]]] = []
        self.pending: dict[str, list[QueuedJob[str]]] = {tier: [] for tier in TIERS}
        """On the plain list, where nobody says who is waiting: the next step of ours finds the default tenant there."""
        self.shared: set[str] = set()
        """Tiers in which other tenants are known: before that nobody counts."""

    @rule(
        tier=st.sampled_from(TIERS),
        tenant=st.sampled_from(TENANTS),
        words=st.lists(st.integers(1, 900), min_size=1, max_size=6),
        deadline_s=st.none() | st.integers(2, 58).map(lambda n: n * 10),
    )
    def submit(self, tier: str, tenant: str, words: list[int], deadline_s: int | None) -> None:
        now = datetime.now(UTC)
        dues_s = [None if deadline_s is None else deadline_s + next(self._numbers) * 1e-3 for _ in words]
        jobs = [
            Job(
                model="m",
                tier=tier,
                input="x" * n,
                tenant=tenant,
                deadline=None if due_s is None else now + timedelta(seconds=due_s),
            )
            for n, due_s in zip(words, dues_s, strict=True)
        ]
        target = FLEET.tiers[tier].target_wait_s
        lane = tenant != DEFAULT or (deadline_s is not None and deadline_s < target)
        if lane:
            self._notice(tier)
            if tier not in self.shared:
                self.shared.add(tier)
                self.model[tier].counters = Counters(dict.fromkeys(self.model[tier].counters.active, 0.0))
        ids, pushes = plan(jobs, FLEET)
        for push in pushes:
            self._submit(*arguments(push, FLEET))
        messages = [argument for push in pushes for argument in push.args if isinstance(argument, bytes)]
        for job_id, message, due_s in zip(ids, messages, dues_s, strict=True):
            own = due_s is not None and due_s < target
            due = due_s if own and due_s else target + next(self._numbers) * 1e-6  # what comes later is due later
            self.pending[tier].append(QueuedJob(job_id, tenant, due, fairness.expected(len(message), 0), own))
        if lane:
            self._notice(tier)

    def _notice(self, tier: str) -> None:
        for waiting in self.pending[tier]:
            self.model[tier].push(waiting, 0.0)
        self.pending[tier].clear()

    @rule(free=st.integers(0, 40), preemptible=st.integers(0, 40))
    def claim(self, free: int, preemptible: int) -> None:
        room = Room(free, preemptible)
        for tier in TIERS:
            self._notice(tier)
        for lanes in self.model.values():
            lanes.since = 0.0
        taken = take(self.queue, room).jobs
        expected = claim(list(self.model.values()), 0.0, room).jobs
        assert [_id(job) for job in taken] == [waiting.job for waiting in expected]
        self.held += zip(taken, expected, strict=True)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 1000), used=st.none() | st.tuples(st.integers(0, 500), st.just(0)))
    def finish(self, pick: int, used: tuple[int, int] | None) -> None:
        job, waiting = self.held.pop(pick % len(self.held))
        usage = {"input_tokens": used[0], "output_tokens": used[1]} if used else {}
        result = {"status": "SUCCESS", "result": {"output": '"usage": {', "usage": usage, "timing": {}}}
        assert self.queue.finish([(job.lease, waiting.job, json.dumps(result).encode())]) == []
        if used and job.lease.count("|") > 1:
            late = fairness.price(*used) - waiting.cost
            tier = job.queue.partition(".")[2]
            self.model[tier].counters.charge(waiting.tenant, late / WEIGHTS.get(waiting.tenant, 1.0))

    @invariant()
    def the_counters_agree(self) -> None:
        for tier in self.shared:
            for key, counters in (
                (keys.counters("m", tier), self.model[tier].counters.active),
                (keys.departed("m", tier), self.model[tier].counters.departed),
            ):
                found = {_name(tenant): counter for tenant, counter in self.redis.zrange(key, 0, -1, withscores=True)}
                assert found == pytest.approx(counters, abs=1e-6)


def _name(quoted: bytes) -> str:
    return unquote(quoted.decode())


def _id(job: Claimed) -> str:
    return str(json.loads(job.message)["headers"]["id"])


def test_lua_and_python_take_the_same_jobs_in_the_same_order(redis: redis_py.Redis) -> None:
    run_state_machine_as_test(
        lambda: OrderMachine(redis),
        settings=hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None, print_blob=True),
    )


@pytest.fixture
def limited(redis: redis_py.Redis, server: Any) -> Settings:
    return Settings(
        redis={"url": server.url},
        models={"m": {"engine": "echo", "tiers": ["batch"]}},
        tenants={
            "few": {"max_queued": 3},
            "narrow": {"max_in_flight": 2},
            "slow": {"tokens_per_minute": 600},
        },
    )


@pytest.fixture
def client(limited: Settings) -> Any:
    with Client(limited) as client:
        yield client


@pytest.fixture
def queue(redis: redis_py.Redis, limited: Settings) -> Queue:
    queue = Queue(redis, limited, "m")
    queue.load()
    return queue


_owners = count()


def take(queue: Queue, room: int | Room) -> Any:
    command = queue.claim_command(Room.of(room) if isinstance(room, int) else room, f"w.{next(_owners)}")
    return queue.read_claim(queue.redis.execute_command(*command))


def whose(jobs: list[Claimed]) -> Counter[str]:
    return Counter(job.lease.partition("|")[0].partition("/")[2] or DEFAULT for job in jobs)


def test_a_full_tenant_is_refused_and_told_when_to_come_back(client: Client) -> None:
    client.submit_many(client.job("m", "x", tenant="few") for _ in range(3))
    with pytest.raises(QuotaExceeded, match=r"tenant 'few' has 3 jobs in queue m.batch of 3 allowed") as refused:
        client.submit("m", "x", tenant="few")
    assert isinstance(refused.value, QueueFull)
    assert refused.value.retry_after_s >= 1
    assert len(refused.value.refused) == 1
    client.submit("m", "x", tenant="other")


def test_a_tenant_with_enough_in_flight_is_passed_over_until_one_ends(
    client: Client, queue: Queue, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", "x", tenant=name) for _ in range(5) for name in ("narrow", "free"))
    jobs = take(queue, 10).jobs
    assert whose(jobs) == {"narrow": 2, "free": 5}
    assert not redis.exists(keys.wake("m", "batch")), "nobody is to look for what cannot go on"
    assert take(queue, 10).jobs == []
    mine = next(job for job in jobs if "narrow" in job.lease)
    queue.finish([(mine.lease, "id", b"")])
    assert redis.exists(keys.wake("m", "batch"))
    assert whose(take(queue, 10).jobs) == {"narrow": 1}


def test_a_tenant_that_has_used_up_its_minute_is_passed_over_for_as_long(
    client: Client, queue: Queue, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", "x" * 2000, tenant="slow") for _ in range(5))
    client.submit_many(client.job("m", "x") for _ in range(5))
    first = take(queue, 20)
    assert whose(first.jobs)["slow"] < 5
    assert whose(first.jobs)[DEFAULT] == 5
    assert first.blocked_s is not None
    assert 0 < first.blocked_s < 120
    redis.hset(keys.spent("m"), "slow", f"0@{redis.time()[0]}")
    assert whose(take(queue, 20).jobs)["slow"] >= 1


def test_what_a_job_really_used_counts(client: Client, queue: Queue, redis: redis_py.Redis) -> None:
    client.submit_many(client.job("m", "x", tenant=name) for _ in range(2) for name in ("a", "b"))
    (job,) = take(queue, 1).jobs
    result = b'{"status": "SUCCESS", "result": {"output": "", "usage": {"input_tokens": 70, "output_tokens": 15}}}'
    queue.finish([(job.lease, "id", result)])
    assert redis.zscore(keys.counters("m", "batch"), "a") == 100
    assert redis.hget(keys.lanes("m"), "output") == b"15.000"


def test_what_goes_back_is_not_charged(client: Client, queue: Queue, redis: redis_py.Redis) -> None:
    client.submit_many(client.job("m", "x", tenant="a") for _ in range(3))
    jobs = take(queue, 2).jobs
    assert redis.zscore(keys.counters("m", "batch"), "a") > 0
    queue.release([job.lease for job in jobs])
    assert redis.zscore(keys.counters("m", "batch"), "a") == 0
    assert [_id(job) for job in take(queue, 3).jobs[:2]] == [_id(job) for job in jobs], "at the head, in their order"


def test_lanes_count_as_queued(client: Client, limited: Settings, redis: redis_py.Redis) -> None:
    client.submit_many(client.job("m", "x", tenant="a") for _ in range(3))
    client.submit("m", "x")
    seen = observe(redis, limited)["m"]
    assert (seen.queued, seen.arrived) == (4, 4)
    crowded = limited.model_copy(
        update={"models": {"m": limited.models["m"].model_copy(update={"limits": Limits(max_queued=4)})}}
    )
    with Client(crowded) as other, pytest.raises(QueueFull, match=r"holds 4 jobs of 4 allowed"):
        other.submit("m", "x")
