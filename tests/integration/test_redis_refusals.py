"""A Redis that refuses to serve for a while, whatever is asked: callers are told why, and everything goes on later."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis as redis_py

from deploy.machine.server import Server
from deploy.status import read_status
from gateway.batches.storage.records import BatchRecord
from gatewayed import Gatewayed
from processes import DEADLINE_S, succeeded, wait_for
from producer import AsyncClient, BrokerUnavailable, Client
from producer.contract import heartbeat, keys
from refusing import REFUSALS, Refusing, endless_script, too_few_replicas

TABLES = """
[models.slow]
engine = "echo"
max_concurrency = 4
options = { delay_s = 0.1 }

[models.talk]
engine = "echo"
options = { task = "generate" }

[models.asleep]
engine = "echo"
"""

CURES = {"NOREPLICAS": "lower min-replicas-to-write", "MISCONF": "its log says why", "BUSY": "SCRIPT KILL"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = Server(tmp_path_factory.mktemp("server"))
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="module")
def fleet(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatewayed]:
    fleet = Gatewayed(tmp_path_factory.mktemp("fleet"), server.url, TABLES)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def url(fleet: Gatewayed) -> str:
    """The URL of a gateway, once a worker serves ``slow``."""
    fleet.worker("slow", "w")
    return fleet.gateway()


@pytest.fixture(params=REFUSALS)
def code(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def refuse(code: str) -> Refusing:
    return REFUSALS[code]


def check_told(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(BrokerUnavailable, match=rf": Redis at redis://127.*{CURES[code]}.*\({code}\)"):
        call()


def test_a_client_is_told_the_cause_and_the_cure(fleet: Gatewayed, server: Server, code: str, refuse: Refusing) -> None:
    client = fleet.client
    waits = client.submit("asleep", "x")
    with refuse(server):
        check_told(code, lambda: client.submit("asleep", "x"))
        check_told(
            code, lambda: client.submit_many(client.job("asleep", "x", tier=t) for t in ("batch", "interactive"))
        )
        check_told(code, lambda: client.cancel(waits))
        check_told(code, lambda: client.cancel_many([waits]))
        check_told(code, lambda: client.forget([waits]))
    assert client.cancel(waits)


def test_an_async_client_is_told_the_same(fleet: Gatewayed, server: Server, code: str, refuse: Refusing) -> None:
    waits = fleet.client.submit("asleep", "x")

    async def ask() -> None:
        async with AsyncClient(fleet.settings) as client:
            for call in (client.submit("asleep", "x"), client.cancel(waits)):
                with pytest.raises(BrokerUnavailable, match=rf": Redis at.*{CURES[code]}.*\({code}\)"):
                    await call

    with refuse(server):
        asyncio.run(ask())


def test_who_waits_for_a_result_rides_it_out(fleet: Gatewayed, server: Server, url: str) -> None:
    job = fleet.client.submit("slow", "x")
    with endless_script(server), Client(fleet.settings) as client, pytest.raises(TimeoutError, match="did not end"):
        client.result(job, timeout=0.3)
    assert fleet.client.result(job, timeout=DEADLINE_S).output == "x"


def test_the_gateway_says_when_to_come_back(
    fleet: Gatewayed, server: Server, url: str, code: str, refuse: Refusing
) -> None:
    chat = {"model": "talk", "messages": [{"role": "user", "content": "x"}]}
    stored = fleet.settings.state_dir / "files" / "files"
    with httpx2.Client(base_url=url, timeout=DEADLINE_S) as http:
        file = upload(http, [{"input": "x"}]).json()
        before = sorted(stored.iterdir())
        batch = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
        with refuse(server):
            answers = [
                http.post("/v1/chat/completions", json=chat),
                http.post("/v1/jobs", json={"model": "talk", "input": "x"}),
                http.post("/v1/batches", json=batch),
                upload(http, [{"input": "x"}]),
            ]
            ready = http.get("/readyz").status_code
        assert sorted(stored.iterdir()) == before, "an upload that failed leaves nothing"
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable"), answer.text
            assert int(answer.headers["Retry-After"]) >= 1
        assert ready == (200 if code == "NOREPLICAS" else 503)
        assert upload(http, [{"input": "x"}]).is_success


def upload(http: httpx2.Client, lines: list[dict[str, Any]]) -> httpx2.Response:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})


def lines(count: int) -> list[dict[str, Any]]:
    return [{"custom_id": f"{n}", "model": "slow", "input": f"{n}"} for n in range(count)]


def make_batch(http: httpx2.Client, count: int) -> str:
    file = upload(http, lines(count)).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/jobs", "completion_window": "1h"}
    answer = http.post("/v1/batches", json=asked)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def batch(fleet: Gatewayed, batch_id: str) -> BatchRecord:
    stored: dict[bytes, bytes] = fleet.redis.hgetall(keys.batch(batch_id))  # type: ignore[assignment]  # not async
    return BatchRecord.stored(batch_id, stored)


@pytest.mark.parametrize("code", ["NOREPLICAS", "BUSY"])
def test_a_batch_process_waits_and_then_runs_its_batches(
    fleet: Gatewayed, server: Server, url: str, refuse: Refusing
) -> None:
    log = fleet.log("batches")
    log.unlink(missing_ok=True)
    with httpx2.Client(base_url=url, timeout=DEADLINE_S) as http:
        made = make_batch(http, 3)
        with refuse(server):
            fleet.batches()
            process = fleet.processes[-1]
            wait_for(lambda: "Batches wait" in log.read_text(), "the batch process to be refused")
            assert process.poll() is None
        wait_for(lambda: batch(fleet, made).status == "completed", "the batch")
    fleet.stop(process)
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("Batches wait") == 1


@pytest.mark.slow
def test_a_batch_that_runs_goes_on(fleet: Gatewayed, server: Server, url: str) -> None:
    log = fleet.log("batches")
    log.unlink(missing_ok=True)
    fleet.batches()
    process = fleet.processes[-1]
    with httpx2.Client(base_url=url, timeout=DEADLINE_S) as http:
        made = make_batch(http, 100)
        wait_for(lambda: batch(fleet, made).status == "in_progress", "the batch to run")
        with too_few_replicas(server):
            refused = refusals(fleet.redis, "NOREPLICAS")
            wait_for(lambda: refusals(fleet.redis, "NOREPLICAS") >= refused + 20, "some refusals")
        wait_for(lambda: batch(fleet, made).status == "completed", "the batch")
        record = batch(fleet, made)
        assert (record.completed, record.failed) == (100, 0)
    fleet.stop(process)
    assert "Traceback" not in log.read_text()


def refusals(redis: redis_py.Redis, code: str) -> int:
    """How often the server has refused so."""
    stats: dict[str, Any] = redis.info("errorstats")
    return int(stats.get(f"errorstat_{code}", {"count": 0})["count"])


def worker_refusals(fleet: Gatewayed) -> int:
    """How often the worker says that it was refused: a commit, or a claim if all jobs have ended by then."""
    log = fleet.log("w").read_text()
    return log.count("Redis cannot serve now") + log.count("no jobs can be taken now")


def test_a_worker_keeps_its_connection_and_its_jobs(
    fleet: Gatewayed, server: Server, url: str, code: str, refuse: Refusing
) -> None:
    connects = fleet.log("w").read_text().count("Connected to")
    jobs = [fleet.client.submit("slow", f"{n}") for n in range(12)]
    with refuse(server):
        before = worker_refusals(fleet)
        wait_for(lambda: worker_refusals(fleet) > before, "the worker to be refused")
    ended = succeeded(fleet.client, jobs)
    assert sorted(ended[job].output for job in jobs) == sorted(f"{n}" for n in range(12))
    # Kombu's health check, every 25 s, is a PING, which the others refuse as well: then it connects anew.
    may_reconnect = 0 if code == "NOREPLICAS" else 1
    assert fleet.log("w").read_text().count("Connected to") <= connects + may_reconnect
    assert all(process.poll() is None for process in fleet.processes[:1])


def test_a_worker_that_starts_meanwhile_serves_later(fleet: Gatewayed, server: Server) -> None:
    job = fleet.client.submit("talk", "x")
    with too_few_replicas(server):
        process = fleet.start("talk", "talker")
        wait_for(lambda: "NOREPLICAS" in fleet.log("talker").read_text(), "the worker to be refused")
    assert fleet.client.result(job, timeout=DEADLINE_S)
    fleet.stop(process)


@pytest.mark.parametrize("code", ["NOREPLICAS", "MISCONF"])
def test_status_shows_what_can_be_read(fleet: Gatewayed, server: Server, code: str) -> None:
    fleet.empty("asleep")
    fleet.redis.lpush("asleep.interactive", "pushed by a stock producer")
    fleet.redis.zadd(keys.workers(), {"gone": 1.0})
    with REFUSALS[code](server):
        snapshot = read_status(fleet.redis, fleet.settings)
        found = heartbeat.read_all(fleet.redis)
    assert {queues.model: queues.queued for queues in snapshot.queues}["asleep"] == 1
    assert "gone" not in {beat.name for beat in found}


def test_status_of_a_busy_redis_says_so(fleet: Gatewayed, server: Server, tmp_path: Path) -> None:
    with endless_script(server):
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "--fleet", str(fleet.file), "status"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "SCRIPT KILL" in done.stderr
    assert "Traceback" not in done.stderr
