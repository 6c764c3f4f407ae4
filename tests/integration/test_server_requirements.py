"""A server that lacks what Stoker needs is refused at the start, with what was found, what is needed and the cure."""

from __future__ import annotations

import asyncio
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine.server import Server
from producer import AsyncClient, BrokerUnavailable, Client, Settings
from producer.contract.errors import UnsuitableServer
from producer.contract.fleet.fleet_schema import Model
from producer.contract.fleet.fleet_schema import Redis as RedisTable
from producer.contract.server.connection import close, connect
from producer.contract.server.server_requirements import check_at_start, unmet

OLD = {"server": "redis", "version": "6.2.14", "mode": "standalone"}
SAID = "is Redis 6.2.14; Stoker needs Redis 7.0"


class OldServer(socketserver.StreamRequestHandler):
    """Answers HELLO as Redis 6.2 does, and OK to anything else."""

    def handle(self) -> None:
        """Answer commands until the client leaves."""
        resp3 = False
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            resp3 = resp3 or words[:2] == [b"HELLO", b"3"]
            fields = "".join(f"${len(text)}\r\n{text}\r\n" for pair in OLD.items() for text in pair)
            fields += "$5\r\nproto\r\n:3\r\n" if resp3 else "$5\r\nproto\r\n:2\r\n"
            pairs = len(OLD) + 1
            hello = (f"%{pairs}" if resp3 else f"*{2 * pairs}") + f"\r\n{fields}"
            self.wfile.write(hello.encode() if words[0] == b"HELLO" else b"+OK\r\n")


@pytest.fixture
def old_url() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldServer) as stub:
        stub.daemon_threads = True
        serving = threading.Thread(target=stub.serve_forever, args=(0.05,))
        serving.start()
        yield f"redis://:open-sesame@127.0.0.1:{stub.server_address[1]}/0"
        stub.shutdown()
        serving.join()


def settings_of(url: str) -> Settings:
    return Settings(redis=RedisTable(url=url), models={"echo": Model(engine="echo")})


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (OLD, SAID),
        ({}, "is older than Redis 6"),
        ({**OLD, "version": "7.4.1", "mode": "cluster"}, "Redis Cluster"),
        ({**OLD, "version": "7.4.1", "mode": "sentinel"}, "sentinel://"),
        ({**OLD, "version": "7.0.0"}, ""),
        ({**OLD, "server": "valkey", "version": "10.1.0-rc1"}, ""),
        ({"server": "proxy"}, ""),
    ],
)
def test_what_is_lacking_is_said(server: dict[str, str], said: str) -> None:
    assert said in unmet(server)
    assert bool(said) == bool(unmet(server))


def test_both_clients_refuse_an_old_server_each_time(old_url: str) -> None:
    with Client(settings_of(old_url)) as client:
        for _ in range(2):  # also on the connection that was made before
            with pytest.raises(UnsuitableServer, match=SAID) as caught:
                client.submit("echo", "hello")
    assert "open-sesame" not in str(caught.value)

    async def submit() -> None:
        async with AsyncClient(settings_of(old_url)) as client:
            await client.submit("echo", "hello")

    with pytest.raises(UnsuitableServer, match=SAID):
        asyncio.run(submit())


PROCESSES = {
    "worker": ["-m", "workers", "--model", "echo", "--device", "cpu:0"],
    "autoscaler": ["-m", "autoscaler"],
    "gateway": ["-m", "deploy.cli", "gateway"],
    "batch process": ["-m", "gateway.batches"],
    "fleet": ["-m", "deploy.cli", "up", "--no-flower", "--no-gateway"],
}


@pytest.mark.slow
def test_every_process_ends_at_its_start_and_says_why(old_url: str, tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[models.echo]\nengine = "echo"\n[[devices]]\nname = "cpu:0"\nmemory_gb = 1\n')
    env = {**os.environ, "REDIS_URL": old_url}
    started = {
        name: subprocess.Popen(
            [sys.executable, *line], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, line in PROCESSES.items()
    }
    try:
        for name, process in started.items():
            told, _ = process.communicate(timeout=120)
            assert (process.returncode, SAID in told, "Traceback" in told) == (2, True, False), (name, told)
    finally:
        for process in started.values():
            process.kill()
            process.communicate()


def test_a_server_that_is_away_at_the_start_is_asked_later() -> None:
    client = connect(settings_of("redis://127.0.0.1:1/0"))
    check_at_start(client)
    close(client)
    with Client(settings_of("redis://127.0.0.1:1/0")) as away, pytest.raises(BrokerUnavailable):
        away.submit("echo", "hello")


def test_a_user_without_the_right_to_ask_is_let_through(server: Server, redis: redis_py.Redis) -> None:
    redis.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">narrow", "+ping")
    try:
        client = connect(settings_of(server.url.replace("redis://", "redis://narrow:narrow@")))
        check_at_start(client)
        assert client.ping()
        close(client)
    finally:
        redis.execute_command("ACL", "DELUSER", "narrow")
