"""Clients that go away, that send too much, and that wait for too long; and a queue that is away."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.machine.server import Server
from gateway.attempt import MARGIN_S
from gatewayed import Gatewayed
from processes import wait_for
from producer import Status
from producer.contract import heartbeat, keys
from producer.contract.heartbeat import Heartbeat
from producer.contract.published import PublishedDemand, PublishedSize, PublishedSizes, ScaleUpConditions
from redis_replies import text

TABLES = """
[gateway]
timeout_s = 3.0
max_body_bytes = 20000

[models.slow]
engine = "echo"
options = { task = "generate", delay_s = 0.02 }

[models.asleep]
engine = "echo"
options = { task = "generate" }
"""

ENDLESS = "word " * 3000
"""At 20 ms a word this takes a minute."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("departure-server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Gatewayed]:
    folder: Path = tmp_path_factory.mktemp("departure")
    fleet = Gatewayed(folder, server.url, TABLES)
    fleet.worker("slow", "slow")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def http(fleet: Gatewayed) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fleet.gateway(), timeout=60) as client:
        yield client


def body(model: str = "slow", **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": ENDLESS, "max_tokens": 3000, **more}


def test_a_reader_that_goes_away_cancels_what_it_read(fleet: Gatewayed, http: httpx2.Client) -> None:
    with http.stream("POST", "/v1/completions", json=body(stream=True)) as answer:
        assert answer.status_code == 200
        next(answer.iter_lines())
        job = answer.headers["x-stoker-job"]
        assert fleet.redis.hlen(keys.inflight("slow")) == 1
    wait_for(lambda: fleet.client.status(job) is Status.CANCELLED, "its cancellation")
    wait_for(lambda: not fleet.redis.hlen(keys.inflight("slow")), "the worker to stop it")


def test_a_client_that_hangs_up_while_it_waits_cancels_its_job(fleet: Gatewayed, http: httpx2.Client) -> None:
    content = json.dumps(body("asleep")).encode()
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        queue = keys.queue("asleep", "interactive")
        wait_for(lambda: fleet.redis.llen(queue), "the job to be queued")
        job = json.loads(text(fleet.redis.lindex(queue, 0)))["headers"]["id"]
        assert not fleet.redis.exists(keys.dated("asleep", "interactive", "default")), (
            "how long it waits is no deadline"
        )
    wait_for(lambda: fleet.client.status(job) is Status.CANCELLED, "its cancellation")
    wait_for(lambda: not fleet.redis.llen(queue), "it to leave its queue")
    wait_for(lambda: 'status="499"' in http.get("/metrics").text, "the metrics to tell")


def test_a_model_whose_workers_fail_to_start_is_503_with_the_reason(fleet: Gatewayed, http: httpx2.Client) -> None:
    size = PublishedSize(
        replicas=1,
        reason="jobs wait",
        demand=PublishedDemand(model="asleep"),
        one_more=ScaleUpConditions(present=0, tier="batch", queued=1),
        backed_off_until=time.time() + 64,
        backed_off_for="a worker ended unasked 7 times in a row. Last: no weights",
        failed_starts=7,
    )
    published = PublishedSizes(at=time.time(), policy="slack", models={"asleep": size})
    fleet.redis.set(keys.sizes(), published.model_dump_json())
    requests = {"/v1/completions": body("asleep"), "/v1/jobs": {"model": "asleep", "input": "x"}}

    def answers() -> list[httpx2.Response]:
        told = [http.post(path, json=request) for path, request in requests.items()]
        return told if all(answer.status_code == 503 for answer in told) else []

    for answer in wait_for(answers, "the gateway to read what the autoscaler publishes"):
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert "Last: no weights" in answer.json()["error"]["message"]
        assert 0 < int(answer.headers["retry-after"]) <= 64
    fleet.redis.delete(keys.sizes())
    fleet.empty("asleep")
    wait_for(lambda: http.post("/v1/jobs", json=requests["/v1/jobs"]).status_code == 202, "the model to be available")
    fleet.empty("asleep")


FIRST, SECOND = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}
"""As the official clients send them: an attempt, and its repetition because the answer was lost."""

SHORT = {"model": "slow", "prompt": "word " * 5, "max_tokens": 5}


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_a_repeated_attempt_is_answered_by_the_job_of_the_first(http: httpx2.Client, more: dict[str, Any]) -> None:
    asked = {**SHORT, "user": str(more), **more}

    def job_of(headers: dict[str, str]) -> str:
        answer = http.post("/v1/completions", json=asked, headers=headers)
        assert answer.status_code == 200
        assert "word" in answer.text
        return answer.headers["x-stoker-job"]

    first = job_of(FIRST)
    assert job_of(SECOND) == first
    assert job_of({"x-stainless-retry-count": "2"}) == first
    assert first not in (other := job_of(FIRST), job_of({}), job_of({}))
    assert job_of(SECOND) == other


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_what_was_answered_is_forgotten_unless_its_client_may_ask_again(
    fleet: Gatewayed, http: httpx2.Client, more: dict[str, Any]
) -> None:
    def kept(headers: dict[str, str]) -> list[str]:
        asked = {**SHORT, "user": "forgotten", **more}
        job = http.post("/v1/completions", json=asked, headers=headers).headers["x-stoker-job"]
        return [keys.result(job), *([keys.stream(job)] if more else [])]

    once, repeated, keyed = kept({}), kept(FIRST), kept({"Idempotency-Key": f"kept {more}"})
    wait_for(lambda: not fleet.redis.exists(*once), "it to be forgotten")
    window_ms = 1000 * (fleet.settings.gateway.timeout_s + MARGIN_S)
    wait_for(lambda: all(0 < fleet.redis.pttl(name) <= window_ms for name in repeated), "it to be kept for less long")
    assert all(fleet.redis.pttl(name) > window_ms for name in keyed)


def test_a_repetition_of_what_was_never_asked_before_runs(http: httpx2.Client) -> None:
    assert http.post("/v1/completions", json={**SHORT, "user": "new"}, headers=SECOND).status_code == 200


def test_a_repetition_of_what_is_gone_is_queued_anew(fleet: Gatewayed, http: httpx2.Client) -> None:
    asked = body("asleep")

    def queued_by_asking() -> int:
        with suppress(httpx2.ReadTimeout):
            wait = httpx2.Timeout(60, read=0.5)
            http.post("/v1/completions", json=asked, headers={"Idempotency-Key": "gone"}, timeout=wait)
        return fleet.redis.llen(keys.queue("asleep", "interactive"))

    assert wait_for(queued_by_asking, "it to be queued") == 1
    fleet.empty("asleep")
    assert wait_for(queued_by_asking, "it to be queued anew") == 1
    assert queued_by_asking() == 1
    fleet.empty("asleep")


def test_a_repetition_keeps_the_job_that_the_first_connection_leaves(fleet: Gatewayed, http: httpx2.Client) -> None:
    asked = {"model": "slow", "prompt": "word " * 60, "max_tokens": 60, "stream": True, "user": "kept"}
    with http.stream("POST", "/v1/completions", json=asked, headers=FIRST) as first:
        reading = first.iter_lines()  # kept: the end of the iterator closes the connection
        next(reading)
        with http.stream("POST", "/v1/completions", json=asked, headers=SECOND) as second:
            told = second.iter_lines()
            next(told)
            first.close()
            assert second.headers["x-stoker-job"] == first.headers["x-stoker-job"]
            rest = list(told)
    assert "data: [DONE]" in rest
    assert '"finish_reason": "stop"' in "".join(rest)
    assert fleet.client.status(first.headers["x-stoker-job"]) is Status.SUCCEEDED


def test_a_repetition_of_what_was_cancelled_or_failed_runs_again(fleet: Gatewayed, http: httpx2.Client) -> None:
    asked = body(stream=True, user="again")
    with http.stream("POST", "/v1/completions", json=asked, headers=FIRST) as first:
        job = first.headers["x-stoker-job"]
    wait_for(lambda: fleet.client.status(job) is Status.CANCELLED, "its cancellation")
    with http.stream("POST", "/v1/completions", json=asked, headers=SECOND) as second:
        assert second.status_code == 200
        assert second.headers["x-stoker-job"] != job


def test_the_job_of_a_request_with_a_key_waits_for_its_client(fleet: Gatewayed, http: httpx2.Client) -> None:
    asked = {"model": "slow", "prompt": "word " * 30, "max_tokens": 30, "stream": True}
    key = {"Idempotency-Key": "mine"}
    with http.stream("POST", "/v1/completions", json=asked, headers=key) as first:
        job = first.headers["x-stoker-job"]
    with http.stream("POST", "/v1/completions", json=asked, headers=key) as second:
        assert second.headers["x-stoker-job"] == job
        assert "data: [DONE]" in list(second.iter_lines())
    assert fleet.client.status(job) is Status.SUCCEEDED
    other = http.post("/v1/completions", json={**asked, "max_tokens": 7}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("more", [{}, {"stream": True}])
def test_what_takes_too_long_is_answered_with_504_and_cancelled(
    fleet: Gatewayed, http: httpx2.Client, more: dict[str, Any]
) -> None:
    fleet.empty("asleep")
    fleet.redis.delete(keys.cancelled())
    answer = http.post("/v1/completions", json=body("asleep", **more))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    wait_for(lambda: fleet.redis.zcard(keys.cancelled()) == 1, "its cancellation")
    wait_for(lambda: not fleet.redis.llen(keys.queue("asleep", "interactive")), "it to leave its queue")


def test_a_stream_that_takes_too_long_ends_with_an_error(http: httpx2.Client) -> None:
    told = http.post("/v1/completions", json=body(stream=True)).text.strip().split("\n\n")
    assert told[-1] == "data: [DONE]"
    assert json.loads(told[-2].removeprefix("data: "))["error"]["code"] == "timeout"


def test_an_upload_that_breaks_off_is_no_error_of_the_gateway(fleet: Gatewayed, http: httpx2.Client) -> None:
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as connection:
        head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        part = '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhalf of it'
        connection.sendall(f"{head}Content-Length: 9999\r\n\r\n{part}".encode())
    told = 'stoker_gateway_requests_total{method="POST",path="/v1/files",status="499"} 1.0'
    wait_for(lambda: told in http.get("/metrics").text, "the end of the upload")
    (log,) = fleet.logs.glob("gateway-*.log")
    assert "Traceback" not in log.read_text()


def test_a_body_may_be_so_large(http: httpx2.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 1000

    for content in (b"x" * 30_000, pieces()):
        answer = http.post("/v1/completions", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"x"', b"{}", b"\xff\xfe", b"null", b'{"model": NaN}', b"[" * 9000]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/jobs"])
def test_a_malformed_body_is_answered_with_what_is_wrong(http: httpx2.Client, path: str, content: bytes) -> None:
    answer = http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_model_added_to_the_fleet_file_is_served_and_a_broken_file_changes_nothing(
    fleet: Gatewayed, http: httpx2.Client
) -> None:
    def models() -> set[str]:
        return {each["id"] for each in http.get("/v1/models").json()["data"]}

    before = fleet.file.read_text()
    assert models() == {"slow", "asleep"}
    fleet.file.write_text(f'{before}\n[models.added]\nengine = "echo"\n')
    wait_for(lambda: "added" in models(), "the model")
    assert http.post("/v1/jobs", json={"model": "added", "input": "x"}).status_code == 202
    (log,) = fleet.logs.glob("gateway-*.log")
    fleet.file.write_text("[models.broken")
    wait_for(lambda: "the changed fleet file is refused" in log.read_text(), "a word about the broken file")
    assert models() == {"slow", "asleep", "added"}
    fleet.file.write_text(before)
    wait_for(lambda: models() == {"slow", "asleep"}, "the file as it was")


def test_the_metrics_tell_of_requests_and_queues(fleet: Gatewayed, http: httpx2.Client) -> None:
    fleet.empty("asleep")
    fleet.client.submit("asleep", "x", tier="batch")
    http.get("/v1/models")
    about = {
        "model": "asleep",
        "device": "cpu:0",
        "host": "h",
        "pid": 1,
        "state": "ready",
        "started_at": 0,
        "beat_at": 0,
    }
    failing = Heartbeat.model_validate({**about, "name": "asleep-1", "breaker": "open", "failing": "9 requests failed"})
    heartbeat.write(fleet.redis, failing)
    told = http.get("/metrics").text
    heartbeat.remove(fleet.redis, "asleep-1")
    assert 'stoker_breakers_open{model="asleep"} 1.0' in told
    assert 'stoker_queue_length{model="asleep",tier="batch"} 1.0' in told
    assert 'stoker_gateway_requests_total{method="GET",path="/v1/models",status="200"}' in told
    line = next(
        line
        for line in told.splitlines()
        if line.startswith('stoker_queue_oldest_age_seconds{model="asleep",tier="batch"')
    )
    assert float(line.rpartition(" ")[2]) > 0


@pytest.mark.slow
def test_a_gateway_outlives_its_queue(own_server: Server, tmp_path: Path) -> None:
    fleet = Gatewayed(tmp_path / "outage", own_server.url, TABLES)
    try:
        with httpx2.Client(base_url=fleet.gateway(), timeout=60) as http:
            own_server.stop()
            assert http.get("/healthz").status_code == 200
            for path in ("/readyz", "/metrics", "/v1/models"):
                answer = http.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")
                assert int(answer.headers["retry-after"]) >= 1
            own_server.start()
            wait_for(lambda: http.get("/readyz").status_code == 200, "it to serve again")
            fleet.worker("slow", "slow")
            assert (
                http.post("/v1/completions", json={"model": "slow", "prompt": "a"}).json()["choices"][0]["text"] == "a"
            )
    finally:
        fleet.close()
