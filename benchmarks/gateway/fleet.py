"""What is measured: a server, an echo for a worker, and a gateway, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from deploy.machine.ports import free_port
from deploy.machine.server import Server
from producer import Settings
from producer.contract import heartbeat
from producer.contract.heartbeat import WorkerState

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet that runs. ``url`` is Redis's."""

    settings: Settings
    port: int
    gateway: psutil.Process
    url: str


@contextmanager
def fleet(folder: Path, token_s: float) -> Iterator[Fleet]:
    """Start one; ``talk`` answers at once, ``stream`` says a word every ``token_s`` seconds in each of 512 streams."""
    file = folder / "fleet.toml"
    with ExitStack() as stack:
        server = Server(folder / "server")
        server.start()
        stack.callback(server.stop)
        file.write_text(
            f'[redis]\nurl = "{server.url}"\n'
            '[models.talk]\nengine = "echo"\nmax_concurrency = 64\noptions = { task = "generate" }\n'
            '[models.stream]\nengine = "echo"\nmax_concurrency = 512\n'
            f'options = {{ task = "generate", delay_s = {token_s} }}\n'
        )
        port = free_port()
        for model in ("talk", "stream"):
            stack.enter_context(_process(file, "workers", "--model", model, "--device", "cpu:0", "--name", model))
        gateway = stack.enter_context(_process(file, "deploy.cli", "gateway", "--port", str(port)))
        with redis.Redis.from_url(server.url) as client:
            _until(
                lambda: (
                    {b.name for b in heartbeat.read_all(client) if b.state is WorkerState.READY} >= {"talk", "stream"}
                )
            )
        _until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield Fleet(Settings.load(file), port, psutil.Process(gateway.pid), server.url)


@contextmanager
def _process(file: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with (file.parent / f"{command[-1]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, "STOKER_FLEET": str(file)}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the fleet did not come up")
        time.sleep(0.05)
