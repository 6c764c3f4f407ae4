"""``rediss://`` with a password, for every part that talks to Redis."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from celery import Celery

from deploy.machine.server import Server
from machine import Machine
from processes import DEADLINE_S, wait_for
from producer import AsyncClient, BrokerUnavailable, Client, Settings, Status
from producer.contract.message.job import TASK
from tls import TlsFront

SECRET = "open-sesame"  # noqa: S105  made up
FLEET = """
[scaling]
interval_s = 0.2

[models.echo]
engine = "echo"
min_replicas = 1

[models.slow]
engine = "echo"
min_replicas = 1
options = { delay_s = 30.0 }

[[devices]]
name = "cpu:0"

[[devices]]
name = "cpu:1"
"""


@pytest.fixture
def front(tmp_path: Path) -> Iterator[TlsFront]:
    server = Server(tmp_path / "server", requirepass=SECRET)
    server.start()
    front = TlsFront(tmp_path, server.port)
    yield front
    front.close()
    server.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path, FLEET)
    yield made
    made.close()


async def _through_asyncio(settings: Settings) -> None:
    async with AsyncClient(settings) as client:
        job = await client.submit("echo", "async")
        assert (await client.result(job, timeout=DEADLINE_S)).output == "async"
        assert await client.cancel(await client.submit("slow", "x"))


@pytest.mark.slow
def test_every_part_of_the_fleet_speaks_tls(front: TlsFront, machine: Machine) -> None:
    url = front.url(SECRET)
    machine.start("autoscaler", url, "autoscaler")  # and with it workers
    with Client(machine.settings(url)) as client:
        assert client.result(client.submit("echo", "x"), timeout=DEADLINE_S).output == "x"
        running = client.submit("slow", "x")
        wait_for(lambda: client.status(running) is Status.RUNNING, "the slow job to run")
        assert client.cancel(running)
    asyncio.run(_through_asyncio(machine.settings(url)))

    lines = [{"custom_id": str(number), "input": f"text {number}"} for number in range(20)]
    (machine.folder / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = machine.run(url, "deploy.cli", "batch", "in.jsonl", "--model", "echo", "--out", "out.jsonl")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (machine.folder / "out.jsonl").read_text().splitlines()]
    assert {answer["output"] for answer in answers} == {line["input"] for line in lines}

    stock_url = f"{url}&ssl_cert_reqs=required"  # which Celery by itself insists on
    with Celery(broker=stock_url, backend=stock_url, set_as_current=False) as app:
        answer = app.send_task(TASK, kwargs={"input": "stock"}, queue="echo.batch")
        assert answer.get(timeout=DEADLINE_S)["output"] == "stock"

    told = machine.run(url, "deploy.cli", "status", "--json")
    assert {worker["model"] for worker in json.loads(told.stdout)["workers"]} == {"echo", "slow"}, told.stderr
    assert json.loads(told.stdout)["redis"] == f"rediss://***@127.0.0.1:{front.port}/0"
    machine.flower(url)
    machine.until_flower_knows("echo", "slow")
    for path in ("/api/queues/length", "/broker"):
        assert machine.ask_flower(path)[0] == http.HTTPStatus.OK


def test_a_server_that_nobody_we_trust_vouches_for_is_not_talked_to(front: TlsFront, machine: Machine) -> None:
    wrong = front.url(SECRET, front.other_ca_file)
    with Client(machine.settings(wrong)) as client, pytest.raises(BrokerUnavailable, match="certificate verify failed"):
        client.submit("echo", "x")
    told = machine.run(wrong, "deploy.cli", "status")
    assert told.returncode == 2
    assert "certificate verify failed" in told.stderr
    machine.start("worker", wrong, "workers", "--model", "echo", "--device", "cpu:0")
    machine.start("autoscaler", wrong, "autoscaler")
    for name in ("worker", "autoscaler"):
        wait_for(partial(machine.logged, name, "certificate verify failed"), name)
    for said in (told.stderr, machine.log("worker").read_text(), machine.log("autoscaler").read_text()):
        assert SECRET not in said


def test_no_part_falls_back_to_the_clear(front: TlsFront, machine: Machine) -> None:
    clear = front.url(SECRET).replace("rediss://", "redis://").partition("?")[0]
    with Client(machine.settings(clear)) as client, pytest.raises(BrokerUnavailable):
        client.submit("echo", "x")
