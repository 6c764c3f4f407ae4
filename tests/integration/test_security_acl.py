"""The fleet under the least-privilege rules of docs/security.md, on a real server with the default user off."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import redis as redis_py
from celery import Celery
from fastapi.testclient import TestClient

from autoscaler.launchers import records
from deploy import acl
from deploy.acl.users import name_of
from deploy.cli.acl import variable
from deploy.machine.ports import free_port
from deploy.machine.server import Server
from gateway.access import api_key_store
from gateway.access.api_key import ApiKey
from gateway.app import create_app
from machine import Machine
from processes import DEADLINE_S, wait_for
from producer import AsyncClient, Client, Settings, Status
from producer.contract import heartbeat, keys
from producer.contract.message.job import TASK
from scheduler import dead_letters
from scheduler.lease.queue import CLAIM_SHA, Queue
from scheduler.order.preemption import Room

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


class Guarded(Machine):
    """A machine with a server that only the roles may use, each with a password of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, FLEET)
        self.url = url
        self.admin = redis_py.Redis.from_url(url)
        self.admin.execute_command("ACL", "SETUSER", "admin", "reset", "on", ">admin", "+@all", "~*", "&*")
        for role in acl.ROLES:
            self.user(role, role)
        self.user("worker-echo", "worker", "echo")
        self.user("producer-echo", "producer", "echo")
        self.admin.close()
        self.admin = redis_py.Redis.from_url(self.as_("admin"))
        self.admin.execute_command("ACL", "SETUSER", "default", "off")
        self.admin.execute_command("ACL", "LOG", "RESET")

    def user(self, name: str, role: str, *models: str) -> None:
        rules = acl.rules(role, self.settings(self.url), models)
        self.admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{name}", *rules)

    def as_(self, user: str) -> str:
        return self.url.replace("redis://", f"redis://{user}:{user}@")

    def client(self, user: str) -> redis_py.Redis:
        return redis_py.Redis.from_url(self.as_(user))

    def refused(self) -> list[tuple[str, str, str]]:
        """Whatever any role was refused: user, reason and object."""
        return [(str(e["username"]), str(e["reason"]), str(e["object"])) for e in self.admin.acl_log()]

    def close(self) -> None:
        super().close()
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


def _through_a_gateway(guarded: Guarded) -> None:
    port = str(free_port())
    guarded.start("gateway", guarded.as_("gateway"), "deploy.cli", "gateway", "--port", port)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as http:

        def ready() -> bool:
            try:
                return http.get("/readyz").is_success
            except httpx2.TransportError:
                return False

        wait_for(ready, "the gateway")
        secret, key = ApiKey.new("tenant", requests_per_minute=60_000)
        with guarded.client("operator") as operator:
            api_key_store.add(operator, secret, key)
            assert [each.id for each in api_key_store.read_all(operator)] == [key.id]
        http.headers["Authorization"] = f"Bearer {secret}"
        webhook = {"url": "https://192.0.2.1/", "secret": "whsec_" + "a" * 43 + "="}
        left = {"model": "echo", "input": "x", "stream": True, "webhook": webhook}
        assert http.post("/v1/jobs", json=left).status_code == 400  # no public address
        webhook["url"] = "https://localhost/"  # found out when it is called
        job = http.post("/v1/jobs", json=left, headers={"Idempotency-Key": "once"}).json()["id"]
        assert http.get(f"/v1/jobs/{job}/stream").text.startswith("event: result")
        wait_for(lambda: http.get(f"/v1/jobs/{job}").json()["webhook"]["failures"], "the webhook to fail")
        assert http.delete(f"/v1/jobs/{job}").json()["status"] == "succeeded"
        assert "stoker_queue_length" in http.get("/metrics").text


@pytest.mark.slow
def test_the_whole_fleet_runs_under_its_rules_and_is_refused_nothing(guarded: Guarded) -> None:
    guarded.start("autoscaler", guarded.as_("autoscaler"), "autoscaler", STOKER_REDIS__WORKER_URL=guarded.as_("worker"))
    with Client(guarded.settings(guarded.as_("producer"))) as client:
        job = client.submit("echo", ["a", "b"], idempotency_key="once")
        assert client.result(job, timeout=DEADLINE_S).output == ["a", "b"]
        running = client.submit("slow", "x")
        wait_for(lambda: client.status(running) is Status.RUNNING, "the slow job to run")
        with guarded.client("producer") as looking:  # an id can be looked up in heartbeats, not learned from them
            assert running not in "".join(beat.model_dump_json() for beat in heartbeat.read_all(looking))
        assert client.cancel(running)
    asyncio.run(_through_asyncio(guarded.settings(guarded.as_("producer"))))
    with Celery(broker=guarded.as_("stock"), backend=guarded.as_("stock"), set_as_current=False) as app:
        answer = app.send_task(TASK, kwargs={"input": "stock"}, queue="echo.batch")
        assert answer.get(timeout=DEADLINE_S)["output"] == "stock"
        answer.forget()
        app.send_task(TASK, kwargs={"input": "x"}, queue="slow.batch").revoke(terminate=True)
    _batched(guarded)
    _through_a_gateway(guarded)  # which needs a key from then on
    _monitored(guarded)
    _dead_letters_decided(guarded)
    _device_released(guarded)
    done = guarded.run(guarded.as_("operator"), "deploy.cli", "retry", "echo")
    assert done.stdout.startswith("echo: "), done.stderr
    workers = list(guarded.workers())
    assert workers
    for record in workers:
        records.terminate(record, 20)  # its goodbye is under the rules, too
    assert guarded.refused() == []


def test_a_dry_run_has_a_monitors_rights_and_tells_what_would_be_done_and_does_nothing(guarded: Guarded) -> None:
    with Client(guarded.settings(guarded.as_("producer"))) as client:
        client.submit("echo", "a")
    before = sorted(guarded.admin.keys())
    dry = guarded.start("dry", guarded.as_("monitor"), "autoscaler", "--dry-run")
    wait_for(lambda: "would start a new echo on cpu:0: 1 queued" in guarded.log("dry").read_text(), "a decision")
    wait_for(lambda: '"queued": {"interactive": 1}' in guarded.log("dry").read_text(), "its numbers")
    dry.terminate()
    assert dry.wait(DEADLINE_S) == 0
    assert guarded.log("dry").read_text().count("would start") == 1  # not in every round
    assert list(guarded.workers()) == []
    assert sorted(guarded.admin.keys()) == before
    # The first reader of a queue notes since when it waits. A monitor may not, and need not.
    assert {what for _, _, what in guarded.refused()} <= {"hsetnx"}


def _batched(guarded: Guarded) -> None:
    """A batch, made by a gateway and run by a batch process."""
    guarded.start("batches", guarded.as_("batches"), "gateway.batches")
    settings = guarded.settings(guarded.as_("gateway"))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
        lines = b'{"custom_id": "a", "input": "x"}\n{"custom_id": "b", "input": "y", "parameters": {"fail": "no"}}\n'
        file = http.post("/v1/files", data={"purpose": "batch"}, files={"file": lines}).json()
        asked = {
            "input_file_id": file["id"],
            "endpoint": "/v1/jobs",
            "completion_window": "24h",
            "model": "echo",
        }
        made = [http.post("/v1/batches", json={**asked, "model": model}).json()["id"] for model in ("echo", "slow")]
        wait_for(lambda: http.get(f"/v1/batches/{made[1]}").json()["status"] == "in_progress", "the slow one to run")
        assert http.post(f"/v1/batches/{made[1]}/cancel").json()["status"] == "cancelling"
        for batch_id, end in zip(made, ("completed", "cancelled"), strict=True):
            wait_for(lambda: http.get(f"/v1/batches/{batch_id}").json()["status"] == end, end)  # noqa: B023  at once
        output = http.get(f"/v1/batches/{made[0]}").json()["output_file_id"]
        assert http.get(f"/v1/files/{output}/content").text
        assert len(http.get("/v1/batches").json()["data"]) == 2
        assert http.get("/v1/files", params={"order": "asc"}).json()["data"][0]["id"] == file["id"]
        assert http.delete(f"/v1/files/{file['id']}").is_success


def _monitored(guarded: Guarded) -> None:
    told = json.loads(guarded.run(guarded.as_("monitor"), "deploy.cli", "status", "--json").stdout)
    assert {model["model"] for model in told["queues"]} == {"echo", "other", "slow"}
    assert {worker["model"] for worker in told["workers"]} >= {"echo"}
    assert told["decisions"]
    assert told["node"]["total"] == len(told["devices"]) == 2
    why = json.loads(guarded.run(guarded.as_("monitor"), "deploy.cli", "explain", "echo", "--json").stdout)
    assert why["models"][0]["wanted"]["reason"]
    guarded.flower(guarded.as_("monitor"))
    guarded.until_flower_knows("echo", "slow")
    for path in ("/api/queues/length", "/api/tasks", "/broker"):
        assert guarded.ask_flower(path)[0] == http.HTTPStatus.OK


def _dead_letters_decided(guarded: Guarded) -> None:
    guarded.admin.lpush(keys.queue("echo", "batch"), b"rubbish")
    operator = guarded.client("operator")
    (letter,) = wait_for(lambda: list(dead_letters.letters(operator, "echo")), "the dead letter")
    shown = guarded.run(guarded.as_("operator"), "deploy.cli", "dead", "show", "echo", letter.id)
    assert "rubbish" in shown.stdout, shown.stderr
    dead_letters.requeue(operator, "echo", letter.id)
    wait_for(lambda: list(dead_letters.letters(operator, "echo")), "it to come back")
    assert dead_letters.purge(operator, "echo") == 1
    operator.close()


def _device_released(guarded: Guarded) -> None:
    where = keys.quarantine()
    guarded.admin.hset(where, "cuda:9", '{"fault": "xid", "reason": "XID 79"}')
    done = guarded.run(guarded.as_("operator"), "deploy.cli", "release", "cuda:9")
    assert "cuda:9 is released; it was out for: XID 79" in done.stdout, done.stderr
    again = guarded.run(guarded.as_("operator"), "deploy.cli", "release", "cuda:9")
    assert (again.returncode, "cuda:9 of" in again.stderr) == (2, True)
    guarded.admin.delete(where)


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
    "read what is queued": (["LRANGE", "echo.batch", "0", "-1"], ["producer", "stock", "monitor"]),
    "look at the next job": (["LINDEX", "echo.batch", "-1"], ["producer", "stock"]),
    "take a job": (["RPOP", "echo.batch"], ALL),
    "move a job": (["BLMOVE", "echo.batch", "mine", "RIGHT", "RIGHT", "1"], ALL),
    "delete a queue": (["DEL", "echo.batch"], ALL),
    "overwrite a queue": (["SET", "echo.batch", "x"], ALL),
    "write a queue of no model": (["LPUSH", "celery", "x"], ALL),
    "push a job": (["LPUSH", "echo.batch", "x"], ["monitor"]),
    "read the jobs in flight": (["HGETALL", "stoker:inflight:echo"], ["producer", "stock", "monitor"]),
    "end a lease": (["ZADD", "stoker:leases:echo", "0", "x"], ["producer", "stock", "monitor"]),
    "read dead letters": (["XRANGE", "stoker:dead:echo", "-", "+"], ["producer", "stock", "monitor"]),
    "delete dead letters": (["DEL", "stoker:dead:echo"], ["producer", "stock", "monitor", "autoscaler"]),
    "read an answer": (["GET", "celery-task-meta-x"], ["monitor"]),
    "forge an answer": (["SET", "celery-task-meta-x", "x"], ["producer", "gateway", "batches", "stock", "monitor"]),
    "announce an answer": (
        ["PUBLISH", "celery-task-meta-x", "x"],
        ["producer", "gateway", "batches", "stock", "monitor"],
    ),
    "forget what is cancelled": (
        ["ZREMRANGEBYSCORE", "stoker:cancelled", "-inf", "+inf"],
        ["producer", "gateway", "batches", "stock", "monitor"],
    ),
    "read what a tenant has queued": (
        ["LINDEX", "stoker:lane:batch:bob:echo", "0"],
        ["producer", "stock", "monitor"],
    ),
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
    queue = Queue(guarded.client("worker"), guarded.settings(guarded.as_("worker")), "echo")
    queue.load()
    guarded.admin.lpush("echo.batch", "precious")
    for role in ("producer", "stock", "monitor", "operator"):
        client = guarded.client(role)
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            client.execute_command(*queue.claim_command(Room.of(1), "thief"))
        reading = guarded.admin.script_load("return redis.call('LRANGE', 'echo.batch', 0, -1)")
        if role != "operator":  # which reads what it purges
            with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
                client.evalsha(reading, 0)
        client.close()
    assert queue.claim_command(Room.of(1), "x")[1] == CLAIM_SHA
    assert guarded.admin.lrange("echo.batch", 0, -1) == [b"precious"]
    queue.redis.close()


def test_a_role_runs_no_script_but_its_own(guarded: Guarded) -> None:
    endless = "redis.call('LPUSH', KEYS[1], 'x') while true do end"
    for role in acl.ROLES:
        with guarded.client(role) as client:
            digest = client.script_load(endless)
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.evalsha(digest, 1, "echo.batch")


@pytest.mark.slow
def test_every_part_loads_its_scripts_again_when_the_server_has_forgotten_them(guarded: Guarded) -> None:
    guarded.start("autoscaler", guarded.as_("autoscaler"), "autoscaler", STOKER_REDIS__WORKER_URL=guarded.as_("worker"))
    with Client(guarded.settings(guarded.as_("producer"))) as client:
        for turn in range(2):
            assert client.result(client.submit("echo", "x", tenant="bob"), timeout=DEADLINE_S).output == "x"
            waits = client.submit("slow", f"{turn}")
            assert client.cancel(waits)
            assert client.status(waits) is Status.CANCELLED
            guarded.admin.script_flush()
    assert guarded.refused() == []


def test_a_worker_of_one_model_has_no_part_in_another(guarded: Guarded) -> None:
    guarded.admin.lpush("other.batch", "precious")
    with guarded.client("worker-echo") as client:
        mine = Queue(client, guarded.settings(guarded.as_("worker")), "echo")
        mine.load()
        client.execute_command(*mine.claim_command(Room.of(1), "mine"))
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            Queue(client, guarded.settings(guarded.as_("worker")), "other").claim(1, "thief")
        for command in (["LRANGE", "other.batch", "0", "-1"], ["XRANGE", "stoker:dead:other", "-", "+"]):
            with pytest.raises(redis_py.exceptions.NoPermissionError):
                client.execute_command(*command)
    assert guarded.admin.llen("other.batch") == 1


def test_a_role_may_be_for_some_models_only(guarded: Guarded) -> None:
    with Client(guarded.settings(guarded.as_("producer-echo"))) as client:
        client.submit("echo", "x")
        with pytest.raises(redis_py.exceptions.ResponseError, match=r"(?i)permission"):
            client.submit("other", "x")
    assert guarded.admin.llen("other.interactive") == 0


def test_what_the_command_prints_is_what_the_server_takes(guarded: Guarded) -> None:
    printed = guarded.run(guarded.url, "deploy.cli", "acl", "monitor", "--user", "watcher")
    (line,) = printed.stdout.splitlines()
    assert line.startswith("ACL SETUSER watcher reset on >PASSWORD ")
    arguments = line.replace("PASSWORD", "pw")
    # As redis-cli would send it: a selector in quotes is one argument.
    guarded.admin.execute_command(*shlex.split(arguments))
    with redis_py.Redis.from_url(guarded.url.replace("redis://", "redis://watcher:pw@")) as client:
        assert client.llen("echo.batch") == 0
        assert heartbeat.read_all(client) == []


def test_a_server_takes_the_file_with_the_users_of_all_roles(tmp_path: Path) -> None:
    machine = Machine(tmp_path, FLEET)
    passwords = {variable(role): f"{role}-secret" for role in acl.ROLES} | {"REDIS_PASSWORD": "admin-secret"}
    command = [sys.executable, "-P", "-m", "deploy.cli", "acl", "--all"]
    made = subprocess.run(
        command, env=machine.environment("", **passwords), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "secret" not in made.stdout
    (tmp_path / "users.acl").write_text(made.stdout)
    server = Server(tmp_path / "server", password="admin-secret", aclfile=str(tmp_path / "users.acl"))  # noqa: S106  the test's
    server.start()
    try:
        for role in acl.ROLES:
            with redis_py.Redis.from_url(server.url_of(name_of(role), f"{role}-secret")) as client:
                assert client.ping()
                with pytest.raises(redis_py.exceptions.NoPermissionError):
                    client.flushall()
        with redis_py.Redis.from_url(server.url) as admin:
            assert admin.acl_whoami() in ("default", b"default")
    finally:
        server.stop()
    unset = machine.environment("", **{**passwords, "WORKER_PASSWORD": ""})
    refused = subprocess.run(command, env=unset, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, "WORKER_PASSWORD is not set" in refused.stderr) == (2, True)


def test_the_page_tells_of_every_role() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(acl.ROLES)
