"""Real worker processes for the tests, and the one way to wait for something."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from producer import Client, Settings
from producer.contract import heartbeat
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.message.job import Result
from producer.contract.server.connection import close, connect

T = TypeVar("T")

DEADLINE_S = 120.0
"""How long a test waits for a condition before it fails. Generous: these machines may be busy."""


def wait_for(condition: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Poll a condition until it holds, and return what it returned."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"still waiting after {deadline_s:g} s for {what}")


def succeeded(client: Client, job_ids: Iterable[str]) -> dict[str, Result]:
    """The results of jobs by id; all of the jobs have to succeed."""
    awaited = list(job_ids)
    found = dict(client.results(awaited, timeout=DEADLINE_S))
    results = {job: result for job, result in found.items() if isinstance(result, Result)}
    assert results.keys() == {*awaited}, {job: found.get(job) for job in awaited if job not in results}
    return results


class Fleet:
    """Workers of one fleet file, started and ended by hand, and a client."""

    def __init__(self, folder: Path, url: str, tables: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "fleet.toml"
        self.file.write_text(f'[redis]\nurl = "{url}"\nlease_s = 2\n{tables}')
        self.settings = Settings.load(self.file)
        self.redis = connect(self.settings)
        self.client = Client(self.settings)
        self.logs = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, model: str, name: str) -> subprocess.Popen[bytes]:
        """Start a worker, without waiting for it."""
        command = [sys.executable, "-m", "workers", "--model", model, "--device", "cpu:0", "--name", name]
        environment = {**os.environ, "STOKER_FLEET": str(self.file), "OMP_NUM_THREADS": "1"}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def worker(self, model: str, name: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready."""
        process = self.start(model, name)

        def ready() -> Heartbeat | None:
            assert process.poll() is None, self.log(name).read_text()
            return self.beat(name, WorkerState.READY)

        wait_for(ready, f"worker {name}")
        return process

    def beat(self, name: str, state: WorkerState) -> Heartbeat | None:
        """The heartbeat of a worker, if it is in that state."""
        return next((b for b in heartbeat.read_all(self.redis) if (b.name, b.state) == (name, state)), None)

    def log(self, name: str) -> Path:
        """What a worker wrote."""
        return self.logs / f"{name}.log"

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.client.close()
        close(self.redis)
