"""The processes that a batch goes through, each of which can be killed and comes again: a gateway on its port, a batch
process, a worker.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.chaos.arena import Arena, wait_for
from deploy.machine.ports import free_port

Say = Callable[[str], None]

AWAY = (httpx2.TransportError, httpx2.HTTPStatusError)
"""What a client sees of a gateway that was killed, or whose Redis was."""


class Stage:
    """A fleet of the arena with one of each process, and a client of its gateway."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.port = free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.workers = 0
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self) -> None:
        """Start all of them, and wait until they serve."""
        for what in ("gateway", "batches", "worker"):
            self.spawn(what)
        wait_for(self._ready, "the gateway and the worker")

    def close(self) -> None:
        """Give up the client's connections; the arena ends the processes."""
        self.http.close()

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").is_success and self.arena.is_ready(f"worker-{self.workers}")
        except AWAY:
            return False

    def spawn(self, what: str) -> None:
        """Start one of them, without waiting for it."""
        if what == "worker":
            self.workers += 1
            self.running[what] = self.arena.start_worker(f"worker-{self.workers}")
        elif what == "batches":
            self.running[what] = self.arena.spawn(what, "gateway.batches")
        else:
            self.running[what] = self.arena.spawn(what, "deploy.cli", "gateway", "--port", str(self.port))

    def kill(self, what: str) -> None:
        """SIGKILL, and start it again."""
        self.running[what].send_signal(signal.SIGKILL)
        self.running[what].wait()
        self.spawn(what)

    def peak_mb(self, what: str) -> float:
        """The most memory that the process has held so far (VmHWM), in units of 10^6 bytes."""
        status = Path(f"/proc/{self.running[what].pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        return round(int(kib) * 1024 / 1e6, 1)

    def create(self, source: Path) -> str:
        """Upload a file and make a batch of it; returns its id."""
        with source.open("rb") as file:
            answer = self.http.post("/v1/files", data={"purpose": "batch"}, files={"file": file}, timeout=600)
        answer.raise_for_status()
        asked = {
            "input_file_id": answer.json()["id"],
            "endpoint": "/v1/jobs",
            "completion_window": "24h",
            "model": "echo",
        }
        answer = self.http.post("/v1/batches", json=asked)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        """The batch as the gateway tells it, through outages."""
        while True:
            try:
                answer = self.http.get(f"/v1/batches/{batch_id}")
                answer.raise_for_status()
                told: dict[str, Any] = answer.json()
                return told
            except AWAY:
                time.sleep(0.1)

    def answers(self, batch: dict[str, Any]) -> Counter[int]:
        """How often each line was answered, right answers alone, from the files that the batch left."""
        found: Counter[int] = Counter()
        for file_id in filter(None, (batch["output_file_id"], batch["error_file_id"])):
            with self.http.stream("GET", f"/v1/files/{file_id}/content") as answer:
                answer.raise_for_status()
                for told in answer.iter_lines():
                    found[_number(json.loads(told))] += 1
        return found


def _number(told: dict[str, Any]) -> int:
    """Which line this answers; -1 if it answers wrongly."""
    number = int(told["custom_id"].removeprefix("request-"))
    right = told["response"] is not None and told["response"]["body"].get("output") == text(number)
    return number if right else -1


def text(number: int) -> str:
    """The input of a line. With its frame it makes a line of about 190 bytes."""
    return f"line {number} " + "x" * 115


def write(source: Path, lines: int) -> Path:
    """An input file."""
    with source.open("w") as file:
        file.writelines(_lines(lines))
    return source


def _lines(count: int) -> Iterable[str]:
    for number in range(count):
        yield json.dumps({"custom_id": f"request-{number}", "input": text(number)}) + "\n"
