"""The embedded server: a backlog takes as long to load as it takes, and a server that is none is given up."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from deploy.machine import server as deploy_server
from deploy.machine.local import embedded_users
from deploy.machine.server import Server
from processes import wait_for
from producer import BrokerUnavailable, Settings

KEYS = 40_000
LOAD_DELAY_US = 20


@pytest.fixture
def backlog(tmp_path: Path) -> Iterator[Server]:
    """A server that was killed with thousands of keys, and takes two seconds or more to load them."""
    server = Server(tmp_path / "server", appendfsync="always")
    server.start()
    with redis_py.Redis.from_url(server.url) as client, client.pipeline(transaction=False) as pipe:
        for n in range(KEYS):
            pipe.set(f"key:{n}", "x")
        pipe.execute()
    server.kill()
    server.config["key-load-delay"] = str(LOAD_DELAY_US)
    yield server
    server.kill()


def test_the_server_of_a_machine_has_a_bound_of_memory_and_evicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    users = embedded_users(Settings(state_dir=tmp_path, redis={"max_memory_share": 0.25}))
    assert users is not None
    server = users.server
    server.start()
    try:
        with redis_py.Redis.from_url(server.url) as client:
            machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            found = client.config_get("maxmemory*")
            assert (int(found["maxmemory"]), found["maxmemory-policy"]) == (machine // 4, "noeviction")
    finally:
        server.kill()


@pytest.mark.slow
def test_a_backlog_may_take_as_long_to_load_as_it_takes(backlog: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_server, "START_TIMEOUT_S", 2.0)  # less than loading takes
    monkeypatch.setattr(deploy_server, "TOLD_EVERY_S", 0.2)
    said: list[str] = []
    backlog.spawn()
    wait_for(lambda: listens(backlog.port), "the server to listen")
    backlog.wait_until_ready(said.append)
    assert said
    assert all(line.startswith("the server loads its data: ") for line in said)
    with redis_py.Redis.from_url(backlog.url) as client:
        assert client.dbsize() == KEYS


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_dies_while_it_loads_is_given_up(backlog: Server) -> None:
    process = backlog.spawn()
    killer = threading.Thread(target=lambda: os.kill(process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(BrokerUnavailable, match="did not start; the end of"):
        backlog.wait_until_ready()
    killer.join()


def test_what_answers_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy_server, "START_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        other = Server(tmp_path / "none", silent.getsockname()[1])
        with pytest.raises(BrokerUnavailable, match="did not start"):
            other.wait_until_ready()
