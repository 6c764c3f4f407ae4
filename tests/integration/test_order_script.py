"""The order of jobs is written twice, in Python for the simulator and in Lua for the queues: both do the same.

And what only the script does: quotas, and what a job that was taken has really cost.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from itertools import count
from typing import Any
from urllib.parse import unquote

import pytest
import redis as redis_py
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis.exceptions import NoScriptError

from producer import Client, Job, QueueFull, Settings
from producer.contract import keys
from producer.contract.errors import QuotaExceeded
from producer.contract.fleet.fleet_schema import Limits
from producer.contract.fleet.tenants import DEFAULT, Tenant, most_queued
from producer.contract.queue.withdrawal import Search
from producer.contract.server.dialogue import run
from producer.submission import SUBMIT_LUA, arguments, plan
from scheduler.lease.queue import Claimed, Queue
from scheduler.order import fairness, preemption
from scheduler.order.fairness import Counters
from scheduler.order.lanes import Lanes, QueuedJob, claim
from scheduler.order.preemption import Room
from scheduler.order.priority import rank
from scheduler.queue_lengths import observe
from simulator.queueing.queue_policy import LIVE
from simulator.queueing.queues import Queues
from simulator.traces.trace import Trace

TIERS = ("interactive", "batch", "spare")
WEIGHTS = {"heavy": 2.0, "light": 0.5}
TENANTS = ("heavy", "light", "plain", "odd / name|%", DEFAULT)
FLEET = Settings(
    redis={"lease_s": 1_000_000, "max_losses": 1000},
    models={"m": {"engine": "echo", "tiers": TIERS}},
    tiers={
        "interactive": {"target_wait_s": 10, "weight": 4},
        "batch": {"target_wait_s": 100, "weight": 1, "preemptible": True},
        "spare": {"target_wait_s": 300, "weight": 1, "preemptible": True},
    },
    tenants={name: {"weight": weight} for name, weight in WEIGHTS.items()},
)
EPOCH = 2_000_000_000
TICK_S = 1 / 64
"""Instants are exact in binary and in six decimals, so that nothing depends on how they are rounded."""


class VirtualClock(redis_py.Redis):
    """A client with scripts that read the time from a key, not from the server's clock, and are the same otherwise."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        shas: dict[str, str] = self.__dict__.setdefault("shas", {})
        if args[0] == "SCRIPT LOAD":
            timed = args[1].replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
            shas[_sha(args[1])] = _sha(timed)
            return super().execute_command("SCRIPT LOAD", timed, **options)  # type: ignore[no-untyped-call]  # redis-py
        if args[0] == "EVALSHA":
            if args[1] not in (*shas, *shas.values()):
                raise NoScriptError(args[1])
            args = ("EVALSHA", shas.get(args[1], args[1]), *args[2:])
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py

    def set_clock(self, now: float) -> None:
        """From now on it is ``now``, in Unix seconds."""
        self.delete("clock")
        self.rpush("clock", int(now), round(now % 1 * 1_000_000))


@dataclass(frozen=True)
class Held:
    """A job that was taken: in Redis, in the model, and its number in the simulator's trace."""

    job: Claimed
    waiting: QueuedJob[str]
    request: int

    @property
    def tier(self) -> str:
        return self.job.queue.partition(".")[2]

    @property
    def charged(self) -> bool:
        """Whether its tenant was charged: none is in a queue that knows only the default tenant."""
        return self.job.lease.count("|") > 1


class OrderMachine(RuleBasedStateMachine):
    """The same history for the queues in Redis, for ``scheduler/lanes.py`` and for the simulator's queues. Somebody
    looks at the queues whenever jobs come, as idle workers do."""

    tenants: tuple[str, ...] = TENANTS
    dated = False
    """Whether jobs bring deadlines of their own. In the simulator none do, and it is left out then."""

    def __init__(self, redis: VirtualClock) -> None:
        super().__init__()
        redis.flushall()
        self.redis: Any = redis
        self.now = float(EPOCH)
        redis.set_clock(self.now)
        self.queue = Queue(redis, FLEET, "m")
        self.queue.load()
        self._submit = redis.register_script(SUBMIT_LUA)
        self._numbers = count(1)
        self.model = {
            tier: Lanes[str](rank(FLEET.tiers[tier]), WEIGHTS, FLEET.tiers[tier].preemptible) for tier in TIERS
        }
        self.trace = Trace([], [], [], [], [], [], ("m",), TIERS, self.tenants)
        self.simulated = None if self.dated else Queues(FLEET, self.trace, LIVE)
        self.requests: dict[str, int] = {}
        """Of each job, its number in the trace."""
        self.held: list[Held] = []
        self.shared: set[str] = set()
        """Tiers in which other tenants are known."""
        if self.simulated and len(self.tenants) > 1:  # it knows them from the beginning
            for tier in TIERS:
                self.submit(tier, "plain", [1], None)
            self.claim(Room.of(len(TIERS)))
            while self.held:
                self.finish(0, None)

    @rule(seconds=st.sampled_from((TICK_S, 0.5, 1.0, 10.0, 60.0, 100.0)), times=st.integers(1, 5))
    def wait(self, seconds: float, times: int) -> None:
        self.now += seconds * times
        self.redis.set_clock(self.now)

    @rule(
        tier=st.sampled_from(TIERS),
        tenant=st.integers(0, 100),
        words=st.lists(st.integers(1, 900), min_size=1, max_size=6),
        deadline_s=st.none() | st.integers(0, 300),
    )
    def push(self, tier: str, tenant: int, words: list[int], deadline_s: int | None) -> None:
        self.submit(tier, self.tenants[tenant % len(self.tenants)], words, deadline_s if self.dated else None)

    def submit(self, tier: str, tenant: str, words: list[int], deadline_s: int | None) -> None:
        target = FLEET.tiers[tier].target_wait_s
        dues = [None if deadline_s is None else self.now + deadline_s + next(self._numbers) * TICK_S for _ in words]
        own = [due is not None and due < self.now + target for due in dues]
        if (tenant != DEFAULT or any(own)) and tier not in self.shared:
            self.shared.add(tier)
            self.model[tier].counters = Counters(dict.fromkeys(self.model[tier].counters.active, 0.0))
        jobs = [
            Job(model="m", input="x" * n, tier=tier, tenant=tenant, deadline=due and datetime.fromtimestamp(due, UTC))
            for n, due in zip(words, dues, strict=True)
        ]
        ids, pushes = plan(jobs, FLEET)
        for push in pushes:
            self._submit(*arguments(push, FLEET))
        messages = [argument for push in pushes for argument in push.args if isinstance(argument, bytes)]
        for job_id, message, due, is_own in zip(ids, messages, dues, own, strict=True):
            cost = fairness.expected(len(message), 0)
            due = due if due is not None and is_own else self.now + target
            self.model[tier].push(QueuedJob(job_id, tenant, due, cost, is_own), self.now)
            self._simulate(tier, tenant, job_id, cost)
        self._look()

    def _simulate(self, tier: str, tenant: str, job_id: str, cost: int) -> None:
        trace: Any = self.trace
        request = self.requests[job_id] = len(trace)
        for column, value in (
            (trace.at, self.now),
            (trace.input_tokens, cost),
            (trace.output_tokens, 0),
            (trace.tenant, self.tenants.index(tenant)),
            (trace.tier, TIERS.index(tier)),
        ):
            column.append(value)
        if self.simulated:
            self.simulated.push(request, self.now)

    def _look(self) -> None:
        assert take(self.queue, Room.of(0)).jobs == []

    @rule(
        room=st.builds(Room, st.integers(0, 10), st.integers(0, 10), st.just(0) | st.integers(0, 5))
        | st.just(Room.of(100))
    )
    def claim(self, room: Room) -> None:
        patience = {
            tier: preemption.patience(self.now - lanes.filled, FLEET.tiers[tier].target_wait_s)
            for tier, lanes in self.model.items()
            if lanes.preemptible
        }
        taken = take(self.queue, room)
        expected = claim(list(self.model.values()), self.now, room)
        assert [_id(job) for job in taken.jobs] == [waiting.job for waiting in expected.jobs]
        assert taken.overdue == expected.overdue
        tiers = {job.queue.partition(".")[2] for job in taken.jobs}
        assert taken.patience == pytest.approx(min((patience[tier] for tier in tiers & patience.keys()), default=1.0))
        requests = [self.requests[waiting.job] for waiting in expected.jobs]
        if self.simulated:
            assert self.simulated.claim(self.now, room) == (requests, taken.overdue)
        self.held += map(Held, taken.jobs, expected.jobs, requests)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 1000), used=st.none() | st.tuples(st.integers(0, 500), st.just(0)))
    def finish(self, pick: int, used: tuple[int, int] | None) -> None:
        one = self.held.pop(pick % len(self.held))
        usage = {"input_tokens": used[0], "output_tokens": used[1]} if used else {}
        result = {"status": "SUCCESS", "result": {"output": '"usage": {', "usage": usage, "timing": {}}}
        assert self.queue.finish([(one.job.lease, one.waiting.job, json.dumps(result).encode())]) == []
        self.model[one.tier].ended(self.now)
        late = (fairness.price(*used) - one.waiting.cost) / WEIGHTS.get(one.waiting.tenant, 1.0) if used else 0.0
        if one.charged:
            self.model[one.tier].counters.charge(one.waiting.tenant, late)
        if self.simulated:
            self.simulated.ended(one.request, self.now)
            self.simulated.tiers[TIERS.index(one.tier)].counters.charge(one.waiting.tenant, late)

    @precondition(lambda self: self.held)
    @rule(picks=st.sets(st.integers(0, 20), min_size=1), lost=st.booleans())
    def give_back(self, picks: set[int], lost: bool) -> None:
        """Preempted or drained, and so released in the order in which they were taken; or their worker is lost."""
        back = [self.held[n] for n in sorted({pick % len(self.held) for pick in picks})]
        if lost:
            back.sort(key=lambda one: one.job.lease)
            self.queue.expire([one.job.lease for one in back])
        else:
            assert self.queue.release([one.job.lease for one in back]) == len(back)
        for tier in TIERS:
            jobs = [one for one in back if one.tier == tier]
            self.model[tier].give_back([one.waiting for one in jobs], self.now)
            for one in jobs:
                if not one.charged:
                    charge = one.waiting.cost / WEIGHTS.get(one.waiting.tenant, 1.0)
                    self.model[tier].counters.charge(one.waiting.tenant, charge)
        if self.simulated:
            self.simulated.give_back([one.request for one in back], self.now)
        self.held = [one for one in self.held if one not in back]
        self._look()

    @precondition(lambda self: self.simulated is None and any(map(len, self.model.values())))
    @rule(picks=st.sets(st.integers(0, 1000), min_size=1, max_size=4))
    def cancel(self, picks: set[int]) -> None:
        """Jobs are cancelled while they are queued."""
        with self.redis.pipeline() as pipe:
            for tier in TIERS:
                pipe.lrange(keys.queue("m", tier), 0, -1)
                for tenant in self.tenants:
                    pipe.lrange(keys.lane("m", tier, tenant), 0, -1)
                    pipe.zrange(keys.dated("m", tier, tenant), 0, -1)
            entries = [entry for found in pipe.execute() for entry in found]
        ids = sorted(json.loads(entry[entry.index(b"{") :])["headers"]["id"] for entry in entries)
        chosen = {ids[pick % len(ids)] for pick in picks}
        self.redis.zadd(keys.cancelled(), dict.fromkeys(chosen, self.now + 1))
        searched = Search(FLEET)
        while not searched.done:
            run(self.redis, searched.step())
        assert searched.withdrawn == chosen
        self.redis.delete(keys.cancelled())
        for lanes in self.model.values():
            for job_id in chosen:
                lanes.withdraw(job_id)

    @invariant()
    def the_clocks_and_the_counters_agree(self) -> None:
        kinds = [(tier, kind) for tier in self.shared for kind in ("active", "departed")]
        with self.redis.pipeline() as pipe:
            pipe.hgetall(keys.served("m"))
            pipe.hgetall(keys.waiting("m"))
            for tier, kind in kinds:
                key = keys.counters("m", tier) if kind == "active" else keys.departed("m", tier)
                pipe.zrange(key, 0, -1, withscores=True)
            served, filled, *found = pipe.execute()
        for tier, lanes in self.model.items():
            if len(lanes):
                queue = keys.queue("m", tier).encode()
                assert (float(served[queue]), float(filled[queue])) == (lanes.since, lanes.filled)
        for (tier, kind), counters in zip(kinds, found, strict=True):
            expected = getattr(self.model[tier].counters, kind)
            assert {_name(tenant): counter for tenant, counter in counters} == pytest.approx(expected, abs=1e-6)


class OfOneTenant(OrderMachine):
    tenants = (DEFAULT,)


class WithDeadlines(OrderMachine):
    dated = True


def _sha(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def _name(quoted: bytes) -> str:
    return unquote(quoted.decode())


def _id(job: Claimed) -> str:
    return str(json.loads(job.message)["headers"]["id"])


@pytest.mark.parametrize("machine", [OrderMachine, OfOneTenant, WithDeadlines])
def test_the_script_the_model_and_the_simulator_take_the_same_jobs_in_the_same_order(
    machine: type[OrderMachine], server: Any
) -> None:
    with VirtualClock.from_url(server.url) as redis:
        run_state_machine_as_test(
            lambda: machine(redis),  # type: ignore[arg-type]  # "a class or a function"
            settings=hypothesis_settings(max_examples=40, stateful_step_count=20, deadline=None, print_blob=True),
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


def jobs_by_tenant(jobs: list[Claimed]) -> Counter[str]:
    return Counter(job.lease.partition("|")[0].partition("/")[2] or DEFAULT for job in jobs)


def test_a_full_tenant_is_refused_and_told_when_to_come_back(client: Client) -> None:
    client.submit_many(client.job("m", "x", tenant="few") for _ in range(3))
    with pytest.raises(QuotaExceeded, match=r"tenant 'few' has 3 jobs in queue m.batch of 3 allowed") as refused:
        client.submit("m", "x", tenant="few")
    assert isinstance(refused.value, QueueFull)
    assert refused.value.retry_after_s >= 1
    assert len(refused.value.refused) == 1
    client.submit("m", "x", tenant="other")


@pytest.mark.parametrize("greedy", ["alice", DEFAULT])
@pytest.mark.parametrize("dated", [False, True])
def test_by_default_a_tenant_fills_half_of_what_others_leave(
    greedy: str, dated: bool, limited: Settings, redis: redis_py.Redis
) -> None:
    models = {"m": limited.models["m"].model_copy(update={"limits": Limits(max_queued=20)})}
    deadline = 10 if dated else None

    with Client(limited.model_copy(update={"models": models, "tenants": {}})) as client:
        for tenant, allowed in ((greedy, 10), ("bob", 5), ("carol", 2)):
            client.submit_many(client.job("m", "x", tenant=tenant, deadline=deadline) for _ in range(allowed))
            with pytest.raises(QuotaExceeded, match=rf"{allowed} allowed \(tenants.{tenant}.queue_share\)"):
                client.submit("m", "x", tenant=tenant, deadline=deadline)
    everything = limited.model_copy(update={"models": models, "tenants": {greedy: Tenant(queue_share=1)}})
    with Client(everything) as client:
        client.submit_many(client.job("m", "x", tenant=greedy) for _ in range(3))
        with pytest.raises(QueueFull, match=r"holds 20 jobs of 20 allowed"):
            client.submit("m", "x", tenant="bob")


def test_a_tenant_may_always_have_one_job_in_a_queue_with_room(limited: Settings, redis: redis_py.Redis) -> None:
    models = {"m": limited.models["m"].model_copy(update={"limits": Limits(max_queued=2)})}
    with Client(limited.model_copy(update={"models": models})) as client:
        client.submit("m", "x", tenant="alice")
        client.submit("m", "x", tenant="bob")


def test_what_stock_producers_push_counts_for_default(limited: Settings, redis: redis_py.Redis) -> None:
    models = {"m": limited.models["m"].model_copy(update={"limits": Limits(max_queued=20)})}
    redis.lpush(keys.queue("m", "batch"), *["{}"] * 10)
    with Client(limited.model_copy(update={"models": models})) as client:
        with pytest.raises(QuotaExceeded, match=r"tenant 'default' has 10 jobs in queue m.batch of 10 allowed"):
            client.submit("m", "x")
        client.submit("m", "x", tenant="bob")


@given(st.integers(1, 30), st.floats(0.01, 1), st.none() | st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_script_and_the_model_let_a_tenant_have_as_many_jobs(
    server: Any, limit: int, share: float, most: int | None, own: int, of_others: int
) -> None:
    account = Tenant(queue_share=share, max_queued=most)
    model = {"engine": "echo", "tiers": ["batch"], "limits": {"max_queued": limit}}
    settings = Settings(redis={"url": server.url}, models={"m": model}, tenants={"a": account})
    with Client(settings) as client:
        client.redis.flushall()
        for tenant, jobs in (("a", own), ("b", of_others)):
            if jobs:
                client.redis.lpush(keys.lane("m", "batch", tenant), *["0000000000.000000|"] * jobs)
        client.redis.hset(keys.lanes("m"), "jobs:m.batch", own + of_others)
        room = own + of_others < limit and own < most_queued(account, limit, of_others)
        with nullcontext() if room else pytest.raises(QueueFull):
            client.submit("m", "x", tenant="a")


def test_a_tenant_with_enough_in_flight_is_passed_over_until_one_ends(
    client: Client, queue: Queue, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", "x", tenant=name) for _ in range(5) for name in ("narrow", "free"))
    jobs = take(queue, 10).jobs
    assert jobs_by_tenant(jobs) == {"narrow": 2, "free": 5}
    assert not redis.exists(keys.wake("m", "batch")), "no worker is woken for jobs that cannot go on"
    assert take(queue, 10).jobs == []
    mine = next(job for job in jobs if "narrow" in job.lease)
    queue.finish([(mine.lease, "id", b"")])
    assert redis.exists(keys.wake("m", "batch"))
    assert jobs_by_tenant(take(queue, 10).jobs) == {"narrow": 1}


def test_a_tenant_that_has_used_up_its_minute_is_passed_over_for_as_long(
    client: Client, queue: Queue, redis: redis_py.Redis
) -> None:
    client.submit_many(client.job("m", "x" * 2000, tenant="slow") for _ in range(5))
    client.submit_many(client.job("m", "x") for _ in range(5))
    first = take(queue, 20)
    assert jobs_by_tenant(first.jobs)["slow"] < 5
    assert jobs_by_tenant(first.jobs)[DEFAULT] == 5
    assert first.blocked_s is not None
    assert 0 < first.blocked_s < 120
    redis.hset(keys.spent("m"), "slow", f"0@{redis.time()[0]}")
    assert jobs_by_tenant(take(queue, 20).jobs)["slow"] >= 1


def test_what_a_job_really_used_counts(client: Client, queue: Queue, redis: redis_py.Redis) -> None:
    client.submit_many(client.job("m", "x", tenant=name) for _ in range(2) for name in ("a", "b"))
    (job,) = take(queue, 1).jobs
    result = b'{"status": "SUCCESS", "result": {"output": "", "usage": {"input_tokens": 70, "output_tokens": 15}}}'
    queue.finish([(job.lease, "id", result)])
    assert redis.zscore(keys.counters("m", "batch"), "a") == 100
    assert redis.hget(keys.accounts("m"), "output") == b"15.000"


def test_what_goes_back_is_not_charged(client: Client, queue: Queue, redis: redis_py.Redis) -> None:
    client.submit_many(client.job("m", "x", tenant="a") for _ in range(3))
    jobs = take(queue, 2).jobs
    assert (redis.zscore(keys.counters("m", "batch"), "a") or 0) > 0
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
