"""Webhooks of one tenant, whose receivers accept and do not answer, and those of another."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from deploy.machine.server import Server
from gateway.jobs.job_record import JobRecord, Notice
from gateway.webhooks.webhook import TIMEOUT_S, Webhook
from gatewayed import Gatewayed
from processes import wait_for
from producer.contract import keys
from scheduler import results

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
SLOW = 2000


class Prompt(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def silent() -> Iterator[str]:
    """A receiver that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@pytest.fixture
def prompt() -> Iterator[str]:
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Prompt)
    receiver.daemon_threads = True
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_address[1]}/"
    receiver.shutdown()
    receiver.server_close()


def left(fleet: Gatewayed, tenant: str, url: str, count: int) -> list[str]:
    """Have webhooks due of so many jobs of a tenant that have ended."""
    ids = [f"{tenant}-{number}" for number in range(count)]
    with fleet.redis.pipeline(transaction=False) as pipe:
        for job in ids:
            notice = Notice(webhook=Webhook(url=url, secret=SECRET))
            record = JobRecord(id=job, tenant=tenant, model="talk", tier="interactive", created_at=0.0, notice=notice)
            pipe.set(keys.result(job), results.failed(job, ValueError("as it is")))
            pipe.set(keys.job_record(job), record.model_dump_json(), px=600_000)
            pipe.zadd(keys.webhooks(), {job: 0})
        pipe.execute()
    return ids


@pytest.mark.slow
def test_the_slow_webhooks_of_one_tenant_hold_up_no_others(
    own_server: Server, tmp_path: Path, silent: str, prompt: str
) -> None:
    fleet = Gatewayed(tmp_path / "webhooks", own_server.url)
    try:
        url = fleet.gateway()
        left(fleet, "alice", silent, SLOW)
        wait_for(lambda: fleet.redis.zcount(keys.webhooks(), 1, "+inf") >= 32, "some to be begun")
        mine = left(fleet, "bob", prompt, 10)
        told = [keys.job_record(job) for job in mine]
        wait_for(
            lambda: all('"delivered_at":null' not in str(one) for one in fleet.redis.mget(told)),
            "bob's to be delivered",
            TIMEOUT_S - 5,  # before the first of alice's has failed
        )
        assert httpx2.get(f"{url}/healthz").status_code == 200
    finally:
        fleet.close()
