"""2,000 webhooks of one tenant to a receiver that takes them and never answers, and ten of another."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2

from benchmarks.bars import Bar
from benchmarks.chaos.arena import wait_for

from .stage import Fleet, Say

SLOW, QUICK_SLOW = 2000, 100
COUNT = 10
LATEST_S = 10.0
SECRET = "whsec_" + base64.b64encode(b"0" * 32).decode()


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Leave one tenant's jobs, then another's, and time the latest of its webhooks from when its job was left."""
    slow = QUICK_SLOW if quick else SLOW
    with Fleet(folder) as fleet, _deaf() as deaf, _receiver() as (url, heard):
        with _client(fleet, "alice") as alice, _client(fleet, "bob") as bob:
            accepted = sum(_leave(alice, deaf) is not None for _ in range(slow))
            left = {job: time.monotonic() for job in (_leave(bob, url) for _ in range(COUNT)) if job}
            wait_for(lambda: left.keys() <= heard.keys(), "a tenant's webhooks", deadline_s=180)
        latest = max(heard[job] - at for job, at in left.items())
    say(f"   behind {accepted} slow ones of another: the latest of {len(left)} came after {latest:.1f} s")
    return [
        Bar(
            "webhooks: latest of ten behind another's slow ones, s", round(latest, 2), LATEST_S, note=f"{accepted} slow"
        ),
        Bar("webhooks: jobs of the tenant refused", COUNT - len(left), 0),
    ]


def _client(fleet: Fleet, tenant: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {fleet.key(tenant)}"}
    return httpx2.Client(base_url=f"http://127.0.0.1:{fleet.port}/v1", headers=headers, timeout=60)


def _leave(client: httpx2.Client, url: str) -> str | None:
    """Leave a job with a webhook; None when it is refused."""
    asked = {"model": "talk", "input": "x", "webhook": {"url": url, "secret": SECRET}}
    answer = client.post("/jobs", json=asked)
    return str(answer.json()["id"]) if answer.is_success else None


@contextmanager
def _deaf() -> Iterator[str]:
    """The URL of a receiver that accepts connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@contextmanager
def _receiver() -> Iterator[tuple[str, dict[str, float]]]:
    """The URL of a receiver that answers, and when it first heard of each job."""
    heard: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            heard.setdefault(told["data"]["id"], time.monotonic())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()
        server.server_close()
