"""A password that can be recognised, through good times and bad: it turns up nowhere that anybody reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis as redis_py
from celery import Celery

from autoscaler.launchers import records
from deploy.machine.ports import free_port
from deploy.machine.server import Server
from machine import PASSWORD, Machine
from processes import DEADLINE_S, wait_for
from producer import BrokerUnavailable, Client
from producer.contract import keys

SECRET = "open-sesame"  # noqa: S105  made up
WRONG = "guess-sesame"
FLEET = """
[scaling]
interval_s = 0.2

[models.echo]
engine = "echo"

[models.gone]
engine = "embed"
source = "/no/such/model"

[[devices]]
name = "cpu:0"

[[devices]]
name = "cpu:1"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server", requirepass=SECRET)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "fleet").mkdir()
    made = Machine(tmp_path / "fleet", FLEET)
    yield made
    made.close()


def everything_said(machine: Machine, server: Server) -> str:
    """All that the fleet's processes wrote, and all that it keeps in Redis."""
    said = [file.read_text(errors="replace") for file in machine.folder.rglob("*") if file.is_file()]
    with redis_py.Redis.from_url(server.url) as client:
        read = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"stream": client.xrange,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"list": lambda key: client.lrange(key, 0, -1),
        }
        kept = {key: str(read[client.type(key)](key)) for key in client.keys("*")}
        assert "could not be loaded" in kept[keys.decisions().encode()]
        said += kept.values()
    return "\n".join(said)


def command_lines() -> str:
    """What ``ps`` shows to everybody."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:  # gone meanwhile
            continue
    return "\n".join(lines)


@pytest.mark.slow
def test_the_password_is_said_nowhere(machine: Machine, server: Server) -> None:
    machine.start("autoscaler", server.url, "autoscaler")
    machine.flower(server.url)
    with Client(machine.settings(server.url)) as client:
        assert client.result(client.submit("echo", "x"), timeout=DEADLINE_S).output == "x"
        client.submit("gone", "x")  # its workers fail to load, again and again, which decisions tell
    machine.until_flower_knows("echo")
    (worker,) = [one for one in machine.workers() if one.model == "echo"]
    with Celery(broker=server.url, set_as_current=False) as app:
        inspect = app.control.inspect(timeout=1)
        told = [json.dumps(wait_for(getattr(inspect, name), name)) for name in ("conf", "stats", "report")]
        told.append(json.dumps(wait_for(lambda: inspect.conf(with_defaults=True), "every setting")))
    host = next(iter(json.loads(told[0])))
    assert host.startswith(worker.name)
    for path in ("/", f"/worker/{host}", "/broker", "/tasks", "/api/workers", "/api/tasks", "/api/queues/length"):
        status, body = machine.ask_flower(path)
        assert status == 200, path
        told.append(body)
    told.append(command_lines())
    assert "-m autoscaler" in told[-1]
    shown = machine.run(server.url, "deploy.cli", "status")
    dead = machine.run(server.url, "deploy.cli", "dead", "list")
    told += [shown.stdout, shown.stderr, dead.stdout, dead.stderr, *_in_bad_times(machine, server)]
    told.append(everything_said(machine, server))
    for each in told:
        assert SECRET not in each
        assert WRONG not in each
    _files_are_the_owners_alone(machine)


def _in_bad_times(machine: Machine, server: Server) -> Iterator[str]:
    wrong = server.url.replace(SECRET, WRONG)
    log = machine.log("autoscaler")
    server.kill()
    wait_for(lambda: "does not answer" in log.read_text(), "the autoscaler to miss its server")
    (machine.folder / "in.jsonl").write_text('{"input": "x"}\n')
    with Client(machine.settings(server.url)) as client, pytest.raises(BrokerUnavailable) as away:
        client.submit("echo", "x")
    yield str(away.value) + repr(away.value.__cause__)
    yield from _said(machine.run(server.url, "deploy.cli", "status"))
    server.start()
    wait_for(lambda: "Redis serves again" in log.read_text(), "the autoscaler to find it again")
    machine.start("badworker", wrong, "workers", "--model", "echo", "--device", "cpu:0")
    machine.start("badautoscaler", wrong, "autoscaler")
    with Client(machine.settings(wrong)) as client, pytest.raises(BrokerUnavailable) as refused:
        client.submit("echo", "x")
    yield str(refused.value) + repr(refused.value.__cause__)
    for command in (("status",), ("up", "--no-flower"), ("dead", "list")):
        yield from _said(machine.run(wrong, "deploy.cli", *command))
    unreadable = server.url.replace(SECRET, f"a/{SECRET}#b")
    for module in (("deploy.cli", "status"), ("autoscaler",), ("workers", "--model", "echo", "--device", "cpu:0")):
        yield from _said(machine.run(unreadable, *module))
    for name in ("badworker", "badautoscaler"):
        wait_for(partial(machine.logged, name, "invalid username-password"), name)


def _said(done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    assert done.returncode != 0, done.args
    assert "Traceback" not in done.stderr
    yield done.stdout + done.stderr


def _files_are_the_owners_alone(machine: Machine) -> None:
    found = [file for file in machine.state_dir.rglob("*") if file.is_file()]
    assert len(found) > 2
    assert {file.name: oct(file.stat().st_mode & 0o077) for file in found} == {file.name: "0o0" for file in found}


def test_flower_lets_nobody_in_without_its_password(machine: Machine, server: Server) -> None:
    machine.flower(server.url)
    wait_for(lambda: machine.ask_flower("/api/workers")[0] == 200, "Flower")
    paths = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length")
    for path in paths:
        assert machine.ask_flower(path, password=None)[0] == 401, path
        assert machine.ask_flower(path, password=f"not-{PASSWORD}")[0] == 401, path


@pytest.mark.slow
def test_up_gives_its_own_server_and_flower_passwords_that_only_the_owner_reads(tmp_path: Path) -> None:
    machine = Machine(tmp_path, FLEET)
    environment = {"REDIS_URL": "", "FLOWER_BASIC_AUTH": ""}
    del environment["FLOWER_BASIC_AUTH"]
    try:
        machine.start("up", "", "deploy.cli", "up", **environment)
        url = wait_for(lambda: _read(machine.state_dir / "redis.url"), "the server's address")
        wait_for(lambda: "the fleet is up" in machine.log("up").read_text(), "the fleet")
        with redis_py.Redis.from_url(url) as client:
            assert client.ping()
        bare = "redis://" + url.rpartition("@")[2]
        with redis_py.Redis.from_url(bare) as client, pytest.raises(redis_py.AuthenticationError):
            client.ping()
        secrets = [urlsplit(url).password or "", _read(machine.state_dir / "flower-password")]
        assert all(len(secret) >= 24 for secret in secrets)
        status = machine.run("", "deploy.cli", "status")
        logs = [file.read_text() for file in (machine.state_dir / "logs").iterdir()]
        for said in (command_lines(), status.stdout, status.stderr, machine.log("up").read_text(), *logs):
            assert not any(secret in said for secret in secrets)
        _files_are_the_owners_alone(machine)
    finally:
        assert machine.run("", "deploy.cli", "down").returncode == 0
        machine.close()
    assert records.read_all(machine.state_dir / "run") == []


@pytest.mark.slow
def test_each_part_that_up_starts_has_its_own_user_and_is_refused_nothing(tmp_path: Path) -> None:
    tables = '[models.echo]\nengine = "echo"\n[[devices]]\nname = "cpu:0"\n'
    machine = Machine(tmp_path, tables)
    try:
        machine.start("up", "", "deploy.cli", "up", "--port", str(free_port()), REDIS_URL="")
        wait_for(lambda: "the fleet is up" in machine.log("up").read_text(), "the fleet")
        url = _read(machine.state_dir / "redis.url")
        with Client(machine.settings(url)) as client:
            assert client.result(client.submit("echo", "x"), timeout=DEADLINE_S).output == "x"
            users = {str(each["user"]) for each in client.redis.client_list()}
            roles = {"autoscaler", "worker", "gateway", "batches", "monitor"}
            assert users - {"default"} == {f"stoker-{role}" for role in roles}
            machine.file.write_text(tables + '[models.added]\nengine = "echo"\n')
            with Client(machine.settings(url)) as later:
                assert later.result(later.submit("added", "y"), timeout=DEADLINE_S).output == "y"
            assert client.redis.acl_log() == []
    finally:
        assert machine.run("", "deploy.cli", "down").returncode == 0
        machine.close()


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
