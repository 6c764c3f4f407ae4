"""A gateway, fuzzed by its own OpenAPI description: nothing is answered with 5xx, and nobody dies of it.

``make fuzz`` does the same with many more requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from deploy.machine.server import Server
from gateway.app import create_app
from gatewayed import Gatewayed
from processes import wait_for
from producer import Settings
from producer.contract.heartbeat import WorkerState

EXAMPLES = int(os.environ.get("STOKER_FUZZ_EXAMPLES", "15"))
"""Requests made up for each operation."""

MODELS = ("talk", "vectors", "plain")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    server = Server(folder / "server")
    server.start()
    fleet = Gatewayed(folder, server.url)
    for model in MODELS:
        fleet.start(model, model)
    yield fleet
    fleet.close()
    server.stop()


@pytest.fixture(scope="module")
def url(fleet: Gatewayed) -> str:
    url = fleet.gateway()
    for model in MODELS:
        wait_for(lambda model=model: fleet.beat(model, WorkerState.READY), model)
    return url


schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_answered_with_a_server_error(case: Any, url: str) -> None:
    size = len(repr(case.body))
    if isinstance(case.body, dict) and "model" in case.body and size % 4:
        case.body["model"] = MODELS[size % 4 - 1]  # or hardly a request would get any further
    response = case.call(base_url=url, timeout=30)
    case.validate_response(response, checks=[not_a_server_error])
    assert response.status_code < 500, response.text


def test_nobody_died_of_it(fleet: Gatewayed) -> None:
    for process in fleet.processes:
        assert process.poll() is None
    for log in fleet.logs.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()
