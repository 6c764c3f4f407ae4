"""A state machine of the queue: whatever is done to it in whatever order, every job is in exactly one place."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import Any

import pytest
import redis as redis_py
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from producer.contract import keys
from producer.contract.fleet.fleet_schema import Limits, Model, Redis
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import DEFAULT
from producer.contract.message import celery_message
from producer.contract.message.job import Job
from producer.contract.queue.cancellation import cancel_all
from producer.contract.queue.withdrawal import Search
from producer.contract.server.dialogue import run
from producer.submission import SUBMIT_LUA, arguments, plan
from scheduler import dead_letters
from scheduler.lease.queue import Queue
from scheduler.lease.trials import Order

MODEL = "m"
TIERS = ("interactive", "batch")
TENANTS = (DEFAULT, "named", "capped")
LISTS = 1 + 2 * len(TENANTS)
"""Where the jobs of one queue wait: its list, and for each tenant a lane, and those with deadlines."""
CAP = 2
"""Most jobs of the last in flight."""
WORKERS = st.sampled_from(["a", "b", "c"])
PICK = st.integers(0, 1000)
"""Which of those that there are; taken modulo how many."""


@pytest.fixture
def settings() -> Settings:
    model = Model(engine="echo", tiers=TIERS, limits=Limits(max_retries=2))
    return Settings(
        redis=Redis(lease_s=3600, max_losses=3), models={MODEL: model}, tenants={"capped": {"max_in_flight": CAP}}
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """The queue at one moment."""

    places: dict[str, list[bytes]]
    """Messages by where they are, as they are kept there."""
    inflight: dict[str, bytes]
    leases: set[str]
    remembered: set[str]
    """SHA1 of the messages of which losses or retries are remembered."""
    results: dict[str, bytes]


class QueueMachine(RuleBasedStateMachine):
    """Jobs, three workers that may crash at any moment, and the ghosts of those that did.

    A ghost is a worker that was taken for dead and goes on: it still does everything in the name of its leases.
    """

    def __init__(self, redis: redis_py.Redis, settings: Settings) -> None:
        super().__init__()
        redis.flushall()
        self.redis: Any = redis
        self.settings = settings
        self.queue = Queue(redis, settings, MODEL)
        self._submit = redis.register_script(SUBMIT_LUA)
        self._owners = count()
        self._heard = redis.pubsub()
        self._heard.psubscribe(keys.result("*"))
        self.ids: set[str] = set()
        self.held: dict[str, list[str]] = {"a": [], "b": [], "c": []}
        self.ghosts: list[str] = []
        self.committed: dict[str, bytes] = {}
        self.announced: Counter[str] = Counter()

    def teardown(self) -> None:
        self._heard.close()

    # -- what is seen -------------------------------------------------------------------------------

    def _see(self) -> Seen:
        """Everything, at one moment, in one round trip."""
        known = sorted(self.ids)
        with self.redis.pipeline() as pipe:
            for tier in TIERS:
                pipe.lrange(keys.queue(MODEL, tier), 0, -1)
                for tenant in TENANTS:
                    pipe.lrange(keys.lane(MODEL, tier, tenant), 0, -1)
                    pipe.zrange(keys.dated(MODEL, tier, tenant), 0, -1)
            pipe.lrange(keys.suspects(MODEL), 0, -1)
            pipe.zrange(keys.deferred(MODEL), 0, -1)
            pipe.hgetall(keys.inflight(MODEL))
            pipe.zrange(keys.leases(MODEL), 0, -1)
            pipe.xrange(keys.dead(MODEL))
            pipe.hkeys(keys.losses(MODEL))
            pipe.hkeys(keys.retries(MODEL))
            pipe.mget([keys.result(job_id) for job_id in known] or ["none"])
            *waiting, suspects, deferred, inflight, leases, dead, losses, retries, results = pipe.execute()
        return Seen(
            {
                **{
                    keys.queue(MODEL, tier): [*chain(*waiting[n * LISTS : (n + 1) * LISTS])]
                    for n, tier in enumerate(TIERS)
                },
                "suspects": [entry.partition(b"|")[2] for entry in suspects],
                "deferred": [entry.partition(b"|")[2] for entry in deferred],
                "in flight": list(inflight.values()),
                "dead": [fields[b"message"] for _, fields in dead],
            },
            {lease.decode(): message for lease, message in inflight.items()},
            {lease.decode() for lease in leases},
            {name.decode() for name in [*losses, *retries]},
            {job_id: found for job_id, found in zip(known, results, strict=False) if found is not None},
        )

    def _inflight(self) -> dict[str, bytes]:
        return {lease.decode(): message for lease, message in self.redis.hgetall(keys.inflight(MODEL)).items()}

    def _dead(self) -> list[tuple[str, bytes]]:
        return [(entry.decode(), fields[b"message"]) for entry, fields in self.redis.xrange(keys.dead(MODEL))]

    def _place(self, job_id: str) -> list[str]:
        places = self._see().places
        return [place for place, messages in places.items() for message in messages if _id(message) == job_id]

    def _leases(self) -> list[str]:
        return [lease for leases in self.held.values() for lease in leases] + self.ghosts

    def _capped(self) -> tuple[int, int]:
        """Jobs of the capped tenant that wait in its lanes, and how many of them may be taken."""
        waiting = sum(
            self.redis.llen(keys.lane(MODEL, tier, "capped")) + self.redis.zcard(keys.dated(MODEL, tier, "capped"))
            for tier in TIERS
        )
        return waiting, CAP - int(self.redis.hget(keys.held(MODEL), "capped") or 0)

    def _live(self, lease: str) -> str | None:
        """The job under a lease, if it is still held."""
        message = self._inflight().get(lease)
        return _id(message) if message is not None else None

    def _forget(self, lease: str) -> None:
        for leases in [*self.held.values(), self.ghosts]:
            if lease in leases:
                leases.remove(lease)

    # -- what is done -------------------------------------------------------------------------------

    @rule(
        numbers=st.lists(st.integers(0, 30), min_size=1, max_size=5),
        tier=st.sampled_from(TIERS),
        tenant=st.sampled_from(TENANTS),
        due_s=st.none() | st.integers(1, 500),
    )
    def submit(self, numbers: list[int], tier: str, tenant: str, due_s: int | None) -> None:
        """Numbers come up again: then the job is there already, wherever it is, and must not come twice."""
        deadline = None if due_s is None else datetime.now(UTC) + timedelta(seconds=due_s)
        jobs = [
            Job(model=MODEL, tier=tier, input="x", idempotency_key=str(number), tenant=tenant, deadline=deadline)
            for number in numbers
        ]
        ids, pushes = plan(jobs, self.settings)
        fresh = set(ids) - self.ids
        pushed = sum(self._submit(*arguments(push, self.settings))[0] for push in pushes)
        assert pushed == len(fresh)
        self.ids |= fresh

    @rule(worker=WORKERS, room=st.integers(1, 6), order=st.sampled_from(Order))
    def claim(self, worker: str, room: int, order: Order) -> None:
        idle = not self.held[worker]
        suspects = self.redis.llen(keys.suspects(MODEL))
        places = self._see().places
        capped, free = self._capped()
        jobs = self.queue.claim(room, f"{worker}.{next(self._owners)}", idle, order)
        waiting = sum(len(places[keys.queue(MODEL, tier)]) for tier in TIERS)
        waiting -= max(0, capped - free)
        others = min(room, waiting)
        of_suspects = suspects and (order is Order.FIRST or (order is Order.LAST and not others))
        assert len(jobs) == (int(idle) if of_suspects else others)
        for job in jobs:
            assert self._live(job.lease) == _id(job.message)
        self.held[worker] += [job.lease for job in jobs]

    @rule(worker=WORKERS)
    def renew(self, worker: str) -> None:
        live = self._inflight()
        assert set(self.queue.renew(self.held[worker])) == {lease for lease in self.held[worker] if lease not in live}

    @precondition(lambda self: self._leases())
    @rule(pick=PICK, final=st.booleans())
    def finish(self, pick: int, final: bool) -> None:
        lease = _pick(self._leases(), pick)
        job_id, before = self._live(lease), dict(self.committed)
        text = {"status": "SUCCESS" if final else "RETRY", "result": lease}
        named = job_id or next(iter(self.ids))  # a ghost names the job that it once held
        lost = self.queue.finish([(lease, named, json.dumps(text).encode() if final else b"")])
        self._forget(lease)
        assert lost == ([lease] if job_id is None else [])
        if job_id is None:
            assert self._see().results == before
        else:
            assert self._place(job_id) == []
            if not final:  # acknowledged without a result, as a cancelled job is
                self.redis.set(keys.result(job_id), celery_message.cancelled_meta(job_id), nx=True)
                self.committed[job_id] = self.redis.get(keys.result(job_id))

    @precondition(lambda self: self._leases())
    @rule(pick=PICK)
    def nack(self, pick: int) -> None:
        lease = _pick(self._leases(), pick)
        job_id = self._live(lease)
        assert self.queue.release([lease]) == (job_id is not None)
        self._forget(lease)
        if job_id is not None:
            assert self._place(job_id) in (["suspects"], [lease.partition("|")[0].partition("/")[0]])

    @precondition(lambda self: self._leases())
    @rule(pick=PICK)
    def bury(self, pick: int) -> None:
        lease = _pick(self._leases(), pick)
        job_id = self._live(lease)
        assert self.queue.bury(lease, "of a test") == (job_id is not None)
        self._forget(lease)
        assert job_id is None or self._place(job_id) == ["dead"]

    @precondition(lambda self: self._leases())
    @rule(pick=PICK)
    def defer(self, pick: int) -> None:
        lease = _pick(self._leases(), pick)
        job_id = self._live(lease)
        answer = self.queue.defer(lease)
        assert (answer == -1) == (job_id is None)
        if job_id is not None:
            assert self._place(job_id) == ["deferred" if answer > 0 else "in flight"]
        if answer:
            self._forget(lease)

    @rule()
    def fall_due(self) -> None:
        for entry in self.redis.zrange(keys.deferred(MODEL), 0, -1):
            self.redis.zadd(keys.deferred(MODEL), {entry: 1})

    @precondition(lambda self: self._leases())
    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        """A lease runs out, because its worker was silent for too long; no reaper has run yet."""
        self.redis.zadd(keys.leases(MODEL), {_pick(self._leases(), pick): 1}, xx=True)

    @rule(worker=WORKERS)
    def crash(self, worker: str) -> None:
        """The worker is gone and its leases run out; or it only seems gone."""
        for lease in self.held[worker]:
            self.redis.zadd(keys.leases(MODEL), {lease: 1}, xx=True)
        self.ghosts += self.held[worker]
        self.held[worker] = []

    @rule()
    def reap(self) -> None:
        requeued, buried = self.queue.reap()
        assert not self.redis.zrangebyscore(keys.leases(MODEL), "-inf", 1)
        assert min(requeued, buried) >= 0

    @precondition(lambda self: self.ids)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        job_id = _pick(sorted(self.ids), pick)
        cancelled = run(self.redis, cancel_all(self.settings, [job_id], writes=True))
        assert bool(cancelled) == (job_id not in self.committed)

    @precondition(lambda self: self.ids)
    @rule(pick=PICK)
    def revoke(self, pick: int) -> None:
        """Cancelled by a message to the workers: nothing but the id is known."""
        job_id = _pick(sorted(self.ids), pick)
        for name in (keys.cancelled(), keys.withdrawals()):
            self.redis.zadd(name, {job_id: 4_000_000_000})

    @rule()
    def withdraw(self) -> None:
        """Cancelled jobs leave every place where they wait, and only they."""
        cancelled = {job_id.decode() for job_id in self.redis.zrange(keys.cancelled(), 0, -1)}
        before, searched = self._see().places, Search(self.settings)
        while not searched.done:
            run(self.redis, searched.step())
        for place, messages in self._see().places.items():
            stays = [each for each in before[place] if place in ("in flight", "dead") or _id(each) not in cancelled]
            assert sorted(messages) == sorted(stays)
        assert not searched.withdrawn & {job_id.decode() for job_id in self.redis.zrange(keys.withdrawals(), 0, -1)}

    @rule(tier=st.none() | st.sampled_from(TIERS))
    def purge(self, tier: str | None) -> None:
        """Of one tier, or of all, every job that waits is cancelled, and no other."""
        before = self._see().places
        searched = Search(
            self.settings, {"model": MODEL} if tier is None else {"model": MODEL, "tier": tier}, every=True
        )
        while not searched.done:
            run(self.redis, searched.step())
        after = self._see().places
        emptied = [keys.queue(MODEL, each) for each in TIERS if tier in (None, each)]
        assert all(after[queue] == [] for queue in emptied)
        kept = set(after) - {*emptied, "suspects", "deferred"}
        assert {place: after[place] for place in kept} == {place: before[place] for place in kept}
        if tier is None:
            assert not after["suspects"] + after["deferred"]
        left = {_id(message) for messages in after.values() for message in messages}
        gone = {_id(message) for messages in before.values() for message in messages} - left
        assert searched.withdrawn == gone
        assert searched.count == len(gone)

    @precondition(lambda self: self._dead())
    @rule(pick=PICK)
    def requeue(self, pick: int) -> None:
        entry, message = _pick(self._dead(), pick)
        dead_letters.requeue(self.redis, MODEL, entry)
        job_id = _id(message)
        assert self._place(job_id) != ["dead"]
        self.committed.pop(job_id, None)  # a new life: its failure is forgotten
        self.announced.pop(job_id, None)

    # -- what always holds --------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_doubled_or_left(self) -> None:
        seen = self._see()
        self._check_places(seen)
        self._check_results(seen)
        assert seen.leases == seen.inflight.keys(), "what is in flight is leased, and nothing else"
        open_ = {_sha(message) for place, messages in seen.places.items() if place != "dead" for message in messages}
        assert seen.remembered <= open_, "losses or retries are remembered of a job that ended"

    @invariant()
    def the_lanes_are_what_is_said_of_them(self) -> None:
        told = {field.decode(): value for field, value in self.redis.hgetall(keys.lanes(MODEL)).items()}
        for tier in TIERS:
            jobs = {}
            for tenant in TENANTS:
                dated = self.redis.zrange(keys.dated(MODEL, tier, tenant), 0, 0, withscores=True)
                assert self.redis.zscore(keys.due(MODEL, tier), tenant) == (dated[0][1] if dated else None)
                jobs[tenant] = self.redis.llen(keys.lane(MODEL, tier, tenant))
                jobs[tenant] += self.redis.zcard(keys.dated(MODEL, tier, tenant))
            assert int(told.get(f"jobs:{MODEL}.{tier}", 0)) == sum(jobs.values())
            bells = self.redis.llen(keys.wake(MODEL, tier))
            assert bells <= 1
            if sum(jobs.values()) > jobs["capped"]:
                assert bells == 1, "no worker would notice them"
            active = {tenant.decode() for tenant in self.redis.zrange(keys.counters(MODEL, tier), 0, -1)}
            departed = {tenant.decode() for tenant in self.redis.zrange(keys.departed(MODEL, tier), 0, -1)}
            assert active - {DEFAULT} == {tenant for tenant, count in jobs.items() if count} - {DEFAULT}
            assert not active & departed
        counted = sum(lease.endswith("|f") for lease in self._inflight())
        assert self._capped()[1] == CAP - counted >= 0

    def _check_places(self, seen: Seen) -> None:
        places = Counter(_id(message) for messages in seen.places.values() for message in messages)
        assert not {job_id: times for job_id, times in places.items() if times > 1}
        assert places.keys() <= self.ids
        assert (self.ids - places.keys()) <= seen.results.keys(), "a job is nowhere and has no result"

    def _check_results(self, seen: Seen) -> None:
        for job_id, found in seen.results.items():
            assert self.committed.setdefault(job_id, found) == found, "a result was replaced"
        assert self.committed.keys() == seen.results.keys(), "a result went away"
        self._listen()
        assert max(self.announced.values(), default=0) <= 1, "a result was announced twice"

    def _listen(self) -> None:
        """Everything announced up to now: the answer to a ping comes after it."""
        self._heard.ping()
        while (message := self._heard.get_message(timeout=5)) is None or message["type"] != "pong":
            assert message is not None, "no answer to a ping"
            if message["type"] == "pmessage":
                self.announced[message["channel"].decode().removeprefix(keys.result(""))] += 1


def _id(message: bytes) -> str:
    """Of a message as it is kept: in a lane, an instant stands before it."""
    return str(json.loads(message[message.index(b"{") :])["headers"]["id"])


def _sha(message: bytes) -> str:
    return hashlib.sha1(message, usedforsecurity=False).hexdigest()


def _pick(there: Any, pick: int) -> Any:
    return there[pick % len(there)]


@pytest.mark.parametrize("examples", [15, pytest.param(80, marks=pytest.mark.slow)])
def test_any_interleaving_keeps_every_job_in_exactly_one_place(
    redis: redis_py.Redis, settings: Settings, examples: int
) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(redis, settings),  # type: ignore[arg-type]  # "a class or a function"
        settings=hypothesis_settings(max_examples=examples, stateful_step_count=40, deadline=None, print_blob=True),
    )
