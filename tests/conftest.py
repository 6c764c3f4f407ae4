"""Servers and workers for the tests: real processes on free ports, ended with the test that started them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis as redis_py

from batch_consumer import Consumer
from deploy.machine.server import Server
from processes import Fleet
from producer import Settings

# A busy machine may take longer than Hypothesis's 200 ms for an example: no test asserts an absolute time.
hypothesis.settings.register_profile("stoker", deadline=None)
hypothesis.settings.load_profile("stoker")


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


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[[str, str], Fleet]]:
    """Build fleets of a URL and the fleet file's tables; all their workers end with the test."""
    fleets: list[Fleet] = []

    def make(url: str, tables: str) -> Fleet:
        fleets.append(Fleet(tmp_path / f"fleet-{len(fleets)}", url, tables))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def consume() -> Iterator[Callable[..., Consumer]]:
    """Start consumers of a batch, which echo; all end with the test."""
    started = []

    def start(settings: Settings, model: str = "echo", **options: Any) -> Consumer:
        started.append(Consumer(settings, model, **options))
        started[-1].start()
        return started[-1]

    yield start
    for consumer in started:
        consumer.end()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped anything: what is missing there is a defect of the set-up."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
