"""A hostile producer uses all that its rules allow, at random, beside another tenant's jobs on a real server.

Whatever it does: no claim fails; each job of the other tenant is served once, in its turn; its result is what the
worker wrote; and no answer that the hostile producer gets holds an id or a word of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from autoscaler.upkeep.sweep import Sweep
from deploy import acl
from deploy.acl import scripts, table
from deploy.acl.rules import ROLES, scope
from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import keys
from scheduler.lease.queue import Claimed, Queue

FLEET = '[models.m]\nengine = "echo"\ntiers = ["batch"]\n'
PLAIN = keys.queue("m", "batch")
ASKED = "what-bob-asks"
USERS = {"hostile": "producer", "honest": "producer", "worker": "worker", "autoscaler": "autoscaler"}
NO_ARGUMENTS = {"llen", "zcard", "scard", "hlen", "get", "mget", "del", "exists", "subscribe", "hgetall"}
RESULT = b'{"status": "SUCCESS", "result": {"output": "answer"}}'


TENANTS = st.sampled_from(["bob", "default", "mallory", "nobody", "a|b", "a/b", "m:x", "", "\\0", "%7C", "x" * 3000])
NUMBERS = st.sampled_from(["0", "1", "-1", "-5", "1e300", "inf", "-inf", str(2**63 - 1), str(-(2**63)), "1000000000"])
TEXTS = st.sampled_from(
    [
        b"",
        b"x",
        b"nan",
        b"inf",
        b"-inf",
        b"|",
        b"withdrawn",
        b"{",
        b'{"headers": {"id": "forged"}}',
        b"\xff\xfe",
        b"x" * 17 + b"!message",
        b"9999999999.999999!late",
        b"0000000000.000000|early",
        b"1e3",
        b"0x10",
    ]
) | st.binary(max_size=30)
FIELDS = st.sampled_from([f"jobs:{PLAIN}", f"left:{PLAIN}", "output", "jobs:", "jobs:x", PLAIN, "held:"])
VALUES = st.one_of(TENANTS, NUMBERS, TEXTS)


def arguments(command: str) -> st.SearchStrategy[list[Any]]:
    """What to say after the key."""
    if command in NO_ARGUMENTS:
        return st.just([])
    if command == "zadd":
        return st.tuples(NUMBERS, st.one_of(TENANTS, TEXTS)).map(list)
    if command == "hincrby":
        return st.tuples(FIELDS, NUMBERS).map(list)
    if command == "hset":
        return st.tuples(FIELDS, st.one_of(NUMBERS, TEXTS)).map(list)
    if command in ("xread", "publish"):
        return TEXTS.map(lambda text: [text])
    if command == "xadd":
        return TEXTS.map(lambda text: ["*", "a", text])
    return st.lists(VALUES, min_size=1, max_size=3)


class Hostile(RuleBasedStateMachine):
    """See this file."""

    def __init__(self, admin: redis_py.Redis, url: str, of_fleet: Settings) -> None:
        super().__init__()
        self.admin, self.settings = admin, of_fleet
        admin.flushall()
        urls = {user: url.replace("redis://", f"redis://{user}:x@") for user in USERS}
        self.clients = {user: redis_py.Redis.from_url(each) for user, each in urls.items()}
        own = of_fleet.redis.model_copy(update={"url": urls["honest"]})
        self.bob = Client(of_fleet.model_copy(update={"redis": own}))
        self.queue = Queue(self.clients["worker"], of_fleet, "m")
        self.sweep = Sweep(self.clients["autoscaler"])
        self.waiting: list[str] = []
        """Bob's jobs that were not served."""
        self.served: list[str] = []
        self.turns = 0

    @initialize()
    def begin(self) -> None:
        self.submit(2)

    @rule(many=st.integers(1, 3), deadline=st.none() | st.integers(5, 500))
    def submit(self, many: int, deadline: int | None = None) -> None:
        self.tidy()  # else the queue may look full, until the next round
        jobs = [self.bob.job("m", ASKED, tenant="bob", tier="batch", deadline=deadline) for _ in range(many)]
        self.waiting += self.bob.submit_many(jobs)

    @rule(data=st.data())
    def attack(self, data: st.DataObject) -> None:
        kind, command = data.draw(st.sampled_from(ALLOWED))
        if command == "publish":
            self._say("PUBLISH", keys.pidbox(0), *data.draw(arguments(command)))
            return
        key = data.draw(st.sampled_from(KEYS[kind]))
        if command.startswith("evalsha|"):
            more = data.draw(st.lists(st.one_of(NUMBERS, TENANTS, TEXTS), max_size=14))
            names = data.draw(st.lists(st.sampled_from(NAMES), max_size=3))
            self._say("EVALSHA", command.partition("|")[2], len(names) + 1, key, *names, *more)
        elif command == "xread":
            self._say("XREAD", "STREAMS", key, "0")
        elif command != "subscribe":
            self._say(command.upper(), key, *data.draw(arguments(command)))

    def _say(self, *words: Any) -> None:
        try:
            answer: Any = self.clients["hostile"].execute_command(*words)
        except redis_py.ResponseError as error:
            answer = str(error)
        told = repr(answer)
        assert ASKED not in told
        assert not any(job_id in told for job_id in (*self.waiting, *self.served)), words

    @rule(room=st.integers(1, 4), ends=st.sampled_from(["finish", "release", "bury"]))
    def claim(self, room: int, ends: str) -> None:
        self._end(self._claim(room), ends)

    def _claim(self, room: int) -> list[Claimed]:
        self.turns += 1
        return self.queue.claim(room, f"w.{self.turns}")

    def _end(self, jobs: list[Claimed], ends: str) -> None:
        for job in jobs:
            job_id = _id(job)
            if job_id not in self.waiting:
                assert job_id not in self.served, "served twice"
                if ends == "release":
                    self.queue.release([job.lease])
                else:
                    self.queue.bury(job.lease, "it is no job")
            elif ends == "release":
                self.queue.release([job.lease])
            else:
                self.queue.finish([(job.lease, job_id, RESULT)])
                self.waiting.remove(job_id)
                self.served.append(job_id)

    @rule()
    def tidy(self) -> None:
        """A round of the autoscaler."""
        self.sweep(self.settings)

    def teardown(self) -> None:
        """All of bob's jobs are served in his turn: of each other tenant about as many go before."""
        try:
            self.sweep(self.settings)
            tenants = 2 + self.admin.zcard(keys.counters("m", "batch")) + self.admin.scard(keys.entrants("m", "batch"))
            before = len(self.waiting)
            for served in range(tenants * (before + 1) * CHARGE):
                if not self.waiting:
                    break
                jobs = self._claim(1)
                assert jobs, f"bob's {len(self.waiting)} jobs are not found, after {served} others"
                self._end(jobs, "finish")
            assert not self.waiting, "others go before bob for ever"
            for job_id in self.served:
                assert self.admin.get(keys.result(job_id)) == RESULT
        finally:
            self.bob.close()
            for client in self.clients.values():
                client.close()


CHARGE = 20
"""Most jobs of another tenant that are charged no more than one of bob's."""


def _id(job: Claimed) -> str:
    try:
        return str(json.loads(job.message)["headers"]["id"])
    except (ValueError, TypeError, KeyError):
        return ""


KEYS: dict[str, list[str]] = {kind: [key] for kind, key in table.kinds("m").items()} | {
    "queue": [PLAIN],
    "lane": [keys.lane("m", "batch", tenant) for tenant in ("bob", "mallory", "a|b")],
    "dated": [keys.dated("m", "batch", tenant) for tenant in ("bob", "mallory", "default")],
    **{
        kind: [getattr(keys, kind)("m", "batch")]
        for kind in ("due", "counters", "departed", "entrants", "reached", "wake")
    },
}
NAMES = [name for names in KEYS.values() for name in names]


def _allowed() -> list[tuple[str, str]]:
    """Each kind of key with each command that a producer may give on it."""
    grants = ROLES["producer"](
        scope(Settings.model_validate({"models": {"m": {"engine": "echo", "tiers": ["batch"]}}}))
    )
    found = [(kind, each) for kind, names in KEYS.items() for each in sorted(table.granted(grants, names[0]))]
    return [*found, ("pidbox", "publish")]


ALLOWED = _allowed()


@pytest.fixture
def machine(redis: redis_py.Redis, server: Server, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "fleet.toml").write_text(f'[redis]\nurl = "{server.url}"\n{FLEET}')
    fleet = Settings.load(tmp_path / "fleet.toml")
    for user, role in USERS.items():
        redis.execute_command("ACL", "SETUSER", user, "reset", "on", ">x", *acl.rules(role, fleet))
    for text in (scripts.SUBMIT, scripts.CANCEL):
        redis.script_load(text)
    yield lambda: Hostile(redis, server.url, fleet)
    for user in USERS:
        redis.execute_command("ACL", "DELUSER", user)


def run(machine: Any, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_hostile_producer_harms_nobody(machine: Any) -> None:
    run(machine, 8, 40)


@pytest.mark.slow
def test_a_hostile_producer_harms_nobody_in_ten_thousand_steps(machine: Any) -> None:
    run(machine, 100, 100)
