"""A gateway, fuzzed by its own OpenAPI description: no answer is a 5xx, and no process ends.

``make fuzz`` does the same with many more requests.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from benchmarks.hostile_text.texts import hostile
from deploy.machine.server import Server
from gateway.app import create_app
from gatewayed import Gatewayed
from processes import wait_for
from producer import Result, Settings
from producer.contract import keys
from producer.contract.heartbeat import WorkerState

EXAMPLES = int(os.environ.get("STOKER_FUZZ_EXAMPLES", "15"))
"""Requests made up for each operation."""

TEXTS = int(os.environ.get("STOKER_FUZZ_TEXTS", "100"))
"""Random and hostile texts, each sent to every endpoint."""

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
        wait_for(partial(fleet.beat, model, WorkerState.READY), model)
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


def over_http(literal: bytes) -> Iterator[tuple[str, bytes]]:
    """An input as a body of every endpoint that takes it."""
    yield "/v1/jobs", b'{"model": "plain", "input": [' + literal + b', "x"]}'
    yield "/v1/jobs", b'{"model": "plain", "input": "x", "parameters": {"p": ' + literal + b"}}"
    if literal.startswith(b'"'):
        yield "/v1/jobs", b'{"model": "plain", "input": "x", "metadata": {"m": ' + literal + b"}}"
        yield "/v1/completions", b'{"model": "talk", "max_tokens": 9, "prompt": ' + literal + b"}"
        yield "/v1/embeddings", b'{"model": "vectors", "input": [' + literal + b"]}"
        yield "/v1/batches", b'{"input_file_id": "x", "endpoint": "x", "completion_window": ' + literal + b"}"
        message = b'{"role": "user", "content": ' + literal + b"}"
        yield "/v1/chat/completions", b'{"model": "talk", "max_tokens": 9, "messages": [' + message + b"]}"


def test_a_text_is_answered_as_it_was_given_or_refused(fleet: Gatewayed, url: str) -> None:
    jobs: dict[str, Any] = {}
    headers = {"Content-Type": "application/json"}
    with httpx2.Client(base_url=url, headers=headers, timeout=30) as http:
        for each in hostile(random.Random(7), TEXTS):
            for path, body in over_http(each.literal):
                answer = http.post(path, content=body)
                assert answer.status_code < 500, (each, answer.text)
                told = answer.json()
                if path != "/v1/batches":
                    assert (answer.status_code < 300) is each.readable, (each, path, answer.text)
                elif each.readable:
                    assert told["error"]["param"] == "endpoint"
                else:
                    assert told["error"]["param"] == "completion_window" or told["error"]["code"] == "invalid_json"
                if answer.status_code == 202 and b'"input": [' in body:
                    jobs[told["id"]] = each.value
        for job_id, found in fleet.client.results(jobs, timeout=60):
            assert isinstance(found, Result), found
            assert found.output == [jobs.pop(job_id), "x"]
    assert jobs == {}
    for model in MODELS:
        assert fleet.redis.xlen(keys.dead(model)) == 0


def test_nobody_died_of_it(fleet: Gatewayed) -> None:
    for process in fleet.processes:
        assert process.poll() is None
    for log in fleet.logs.glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()
