"""Servers for the tests: started on free ports, one for the session, empty for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from deploy.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server. That it starts is a condition of the tests: no server is a failure, not a skip."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(server: Server) -> Iterator[redis_py.Redis]:
    """A client of an empty server."""
    client = redis_py.Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed and restarted at will."""
    server = Server(tmp_path / "server", appendfsync="always")
    server.start()
    yield server
    server.stop()
