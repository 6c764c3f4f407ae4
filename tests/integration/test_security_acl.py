"""The fleet under the least-privilege rules of docs/security.md, on a real server with the default user off."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from celery import Celery

from autoscaler.launchers import records
from deploy import acl
from deploy.ports import free_port
from deploy.server import Server
from processes import DEADLINE_S, wait_for
from producer import AsyncClient, Client, Settings, Status, heartbeat, keys
from producer.job import TASK
from scheduler import deadletters
from scheduler.queue import CLAIM_SHA, Queue

FLEET = """
[scaling]
interval_s = 0.2

[models.echo]
engine = "echo"

[models.other]
engine = "echo"

[models.slow]
engine = "echo"
options = { delay_s = 30.0 }

[[devices]]
name = "cpu:0"

[[devices]]
name = "cpu:1"
"""


class Guarded:
    """A server that nobody may use but the roles, each with a password of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.file = folder / "fleet.toml"
        self.file.write_text(FLEET)
        self.folder = folder
        settings = Settings.load(self.file).model_copy(
            update={"redis": Settings().redis.model_copy(update={"url": url})}
        )
        self.admin = redis_py.Redis.from_url(url)
        self.admin.execute_command("ACL", "SETUSER", "admin", "reset", "on", ">admin", "+@all", "~*", "&*")
        for role in acl.ROLES:
            self.admin.execute_command("ACL", "SETUSER", role, "reset", "on", f">{role}", *acl.rules(role, settings))
        one = acl.rules("worker", settings, ["echo"])
        self.admin.execute_command("ACL", "SETUSER", "worker-echo", "reset", "on", ">worker-echo", *one)
        self.admin.close()
        self.admin = redis_py.Redis.from_url(self.as_("admin"))
        self.admin.execute_command("ACL", "SETUSER", "default", "off")
        self.admin.execute_command("ACL", "LOG", "RESET")
        self.processes: list[subprocess.Popen[bytes]] = []

    def as_(self, role: str) -> str:
        return self.url.replace("redis://", f"redis://{role}:{role}@")

    def settings(self, role: str) -> Settings:
        settings = Settings.load(self.file)
        return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": self.as_(role)})})

    def client(self, role: str) -> redis_py.Redis:
        return redis_py.Redis.from_url(self.as_(role))

    def environment(self, role: str, **more: str) -> dict[str, str]:
        return {**os.environ, "STOKER_FLEET": str(self.file), "REDIS_URL": self.as_(role), **more}

    def start(self, name: str, role: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *command],
                env=self.environment(role, **environment), stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, role: str, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command],
            env=self.environment(role), capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self) -> list[tuple[str, str, str]]:
        """Whatever any role was refused: user, reason and object."""
        return [(e["username"], e["reason"], e["object"]) for e in self.admin.acl_log()]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for record in records.read_all(Settings.load(self.file).state_dir / "run"):
            records.send(record, signal.SIGKILL)
        self.admin.close()


@pytest.fixture
def guarded(tmp_path: Path, own_server: Server) -> Iterator[Guarded]:
    made = Guarded(tmp_path, own_server.url)
    yield made
    print("refused:", made.refused())  # shown when the test failed
    made.close()


async def _through_asyncio(settings: Settings) -> None:
    async with AsyncClient(settings) as client:
        job = await client.submit("echo", "async")
        assert (await client.result(job, timeout=DEADLINE_S)).output == "async"
        waits = await client.submit("slow", "x", idempotency_key="k")
        assert await client.cancel(waits)


def test_the_whole_fleet_runs_under_its_rules_and_is_refused_nothing(guarded: Guarded) -> None:
    guarded.start("autoscaler", "autoscaler", "autoscaler", STOKER_REDIS__WORKER_URL=guarded.as_("worker"))
    with Client(guarded.settings("producer")) as client:
        job = client.submit("echo", ["a", "b"], idempotency_key="once")
        assert client.result(job, timeout=DEADLINE_S).output == ["a", "b"]
        running = client.submit("slow", "x")
        wait_for(lambda: client.status(running) is Status.RUNNING, "the slow job to run")
        assert client.cancel(running)
    asyncio.run(_through_asyncio(guarded.settings("producer")))
    with Celery(broker=guarded.as_("stock"), backend=guarded.as_("stock"), set_as_current=False) as app:
        answer = app.send_task(TASK, kwargs={"input": "stock"}, queue="echo.batch")
        assert answer.get(timeout=DEADLINE_S)["output"] == "stock"
        answer.forget()
        app.send_task(TASK, kwargs={"input": "x"}, queue="slow.batch").revoke(terminate=True)
    _monitored(guarded)
    _dead_letters_decided(guarded)
    names = {record.name for record in records.read_all(Settings.load(guarded.file).state_dir / "run")}
    for record in records.read_all(Settings.load(guarded.file).state_dir / "run"):
        records.terminate(record, 20)  # its goodbye is under the rules, too
    assert names
    assert guarded.refused() == []


def _monitored(guarded: Guarded) -> None:
    told = json.loads(guarded.run("monitor", "deploy.cli", "status", "--json"))
    assert {model["model"] for model in told["queues"]} == {"echo", "other", "slow"}
    assert {worker["model"] for worker in told["workers"]} >= {"echo"}
    assert told["decisions"]
    port = free_port()
    basic = {"Authorization": "Basic " + base64.b64encode(b"stoker:pw").decode()}
    guarded.start("flower", "monitor", "deploy.flower", FLOWER_PORT=str(port), FLOWER_BASIC_AUTH="stoker:pw")

    def asked(path: str) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path, headers=basic)
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body) if answer.status == http.HTTPStatus.OK else None
        except OSError:
            return None
        finally:
            connection.close()

    wait_for(lambda: asked("/api/workers?refresh=1"), "Flower to see the workers")
    assert asked("/api/queues/length")
    assert asked("/api/tasks") is not None


def _dead_letters_decided(guarded: Guarded) -> None:
    guarded.admin.lpush(keys.queue("echo", "batch"), b"rubbish")
    operator = guarded.client("operator")
    (letter,) = wait_for(lambda: list(deadletters.letters(operator, "echo")), "the dead letter")
    assert b"rubbish" in guarded.run("operator", "deploy.cli", "dead", "show", "echo", letter.id).encode()
    deadletters.requeue(operator, "echo", letter.id)
    wait_for(lambda: list(deadletters.letters(operator, "echo")), "it to come back")
    assert deadletters.purge(operator, "echo") == 1
    operator.close()


ALL = list(acl.ROLES)
MAY_NOT: dict[str, tuple[list[str], list[str]]] = {
    "destroy the server": (["FLUSHALL"], ALL),
    "destroy the database": (["FLUSHDB"], ALL),
    "read the configuration": (["CONFIG", "GET", "*"], ALL),
    "write files of its choice": (["CONFIG", "SET", "dir", "/srv"], ALL),
    "stop the server": (["SHUTDOWN"], ALL),
    "watch everybody": (["MONITOR"], ALL),
    "change users": (["ACL", "SETUSER", "x"], ALL),
    "load code": (["FUNCTION", "LOAD", "#!lua name=x"], ALL),
    "forget the scripts": (["SCRIPT", "FLUSH"], ALL),
    "run its own script": (["EVAL", "return 1", "0"], ALL),
    "copy the data away": (["REPLICAOF", "1.2.3.4", "6379"], ALL),
    "list every key": (["KEYS", "*"], ALL),
    "find the results of others": (["SCAN", "0"], [role for role in ALL if role not in ("monitor", "operator")]),
    "read what is queued": (["LRANGE", "echo.batch", "0", "-1"], ["producer", "stock", "autoscaler", "monitor"]),
    "look at the next job": (["LINDEX", "echo.batch", "-1"], ["producer", "stock"]),
    "take a job": (["RPOP", "echo.batch"], ALL),
    "move a job": (["BLMOVE", "echo.batch", "mine", "RIGHT", "RIGHT", "1"], ALL),
    "delete a queue": (["DEL", "echo.batch"], ALL),
    "overwrite a queue": (["SET", "echo.batch", "x"], ALL),
    "write a queue of no model": (["LPUSH", "celery", "x"], ALL),
    "push a job": (["LPUSH", "echo.batch", "x"], ["monitor"]),
    "read the jobs in flight": (["HGETALL", "stoker:inflight:echo"], ["producer", "stock"]),
    "end a lease": (["ZADD", "stoker:leases:echo", "0", "x"], ["producer", "stock", "monitor"]),
    "read dead letters": (["XRANGE", "stoker:dead:echo", "-", "+"], ["producer", "stock", "monitor"]),
    "delete dead letters": (["DEL", "stoker:dead:echo"], ["producer", "stock", "monitor", "autoscaler"]),
    "read an answer": (["GET", "celery-task-meta-x"], ["monitor"]),
    "forge an answer": (["SET", "celery-task-meta-x", "x"], ["stock", "monitor", "operator"]),
    "hear everybody's answers": (["PSUBSCRIBE", "celery-task-meta-*"], ALL),
    "hear the events": (
        ["PSUBSCRIBE", "/0.celeryev/*"],
        [role for role in ALL if role not in ("monitor", "operator")],
    ),
    "be the autoscaler": (["SET", "stoker:autoscaler", "me"], [role for role in ALL if role != "autoscaler"]),
    "forge a decision": (["XADD", "stoker:decisions", "*", "a", "b"], [r for r in ALL if r != "autoscaler"]),
    "forge a worker": (["SET", "stoker:worker:x", "{}"], ["producer", "stock", "monitor", "operator"]),
    "command workers": (["PUBLISH", "/0.celery.pidbox", "x"], ["worker", "autoscaler"]),
}


@pytest.mark.parametrize(("command", "roles"), MAY_NOT.values(), ids=MAY_NOT.keys())
def test_a_role_may_not(guarded: Guarded, command: list[str], roles: list[str]) -> None:
    guarded.admin.lpush("echo.batch", "precious")
    for role in roles:
        client = guarded.client(role)
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            client.execute_command(*command)
        client.close()
    assert guarded.admin.lrange("echo.batch", 0, -1) == [b"precious"]


def test_a_script_has_the_rights_of_who_calls_it(guarded: Guarded) -> None:
    """A producer may call any script that is loaded, so what counts is what the script may do in its name."""
    queue = Queue(guarded.client("worker"), guarded.settings("worker"), "echo")
    queue.load()
    guarded.admin.lpush("echo.batch", "precious")
    for role in ("producer", "stock", "monitor", "operator"):
        client = guarded.client(role)
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            client.execute_command(*queue.claim_command(1, "thief"))
        reading = guarded.admin.script_load("return redis.call('LRANGE', 'echo.batch', 0, -1)")
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            client.evalsha(reading, 0)
        client.close()
    assert queue.claim_command(1, "x")[1] == CLAIM_SHA
    assert guarded.admin.lrange("echo.batch", 0, -1) == [b"precious"]
    queue.redis.close()


def test_a_worker_of_one_model_has_no_part_in_another(guarded: Guarded) -> None:
    guarded.admin.lpush("other.batch", "precious")
    with guarded.client("worker-echo") as client:
        mine = Queue(client, guarded.settings("worker"), "echo")
        mine.load()
        client.execute_command(*mine.claim_command(1, "mine"))
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            Queue(client, guarded.settings("worker"), "other").claim(1, "thief")
        for command in (["LRANGE", "other.batch", "0", "-1"], ["XRANGE", "stoker:dead:other", "-", "+"]):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.execute_command(*command)
    assert guarded.admin.llen("other.batch") == 1


def test_a_role_may_be_for_some_models_only(guarded: Guarded) -> None:
    settings = guarded.settings("admin")
    guarded.admin.execute_command(
        "ACL", "SETUSER", "tenant", "reset", "on", ">tenant", *acl.rules("producer", settings, ["echo"])
    )
    with Client(guarded.settings("tenant")) as client:
        client.submit("echo", "x")
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            client.submit("other", "x")
    assert guarded.admin.llen("other.interactive") == 0


def test_what_the_command_prints_is_what_the_server_takes(guarded: Guarded) -> None:
    printed = guarded.run("admin", "deploy.cli", "acl", "monitor", "--user", "watcher")
    (line,) = printed.splitlines()
    assert line.startswith("ACL SETUSER watcher reset on >PASSWORD ")
    arguments = line.replace("PASSWORD", "pw")
    # As redis-cli would send it: a selector in quotes is one argument.
    guarded.admin.execute_command(*shlex.split(arguments))
    with redis_py.Redis.from_url(guarded.url.replace("redis://", "redis://watcher:pw@")) as client:
        assert client.llen("echo.batch") == 0
        assert heartbeat.read_all(client) == []
