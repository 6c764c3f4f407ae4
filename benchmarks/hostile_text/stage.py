"""The fleet that the messages go into: a worker for each kind of answer, a gateway, a batch process, a server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.chaos.arena import MODEL, Arena
from benchmarks.field import stage
from deploy.machine.ports import free_port
from producer import Result
from producer.contract import keys
from producer.contract.message import celery_message

TABLES = """
[models.talk]
engine = "echo"
max_concurrency = 256
options = { task = "generate" }

[models.vectors]
engine = "echo"
max_concurrency = 256
options = { task = "embeddings" }
"""
CONFIG = {"appendfsync": "no", "auto-aof-rewrite-percentage": "100"}
MODELS = (MODEL, "talk", "vectors")
QUEUE = keys.queue(MODEL, "standard")
ANSWER_S = 60.0
"""Longest wait for an answer, in seconds, before it counts as missing."""

CHUNK = 1000
"""Messages that are sent before their ends are looked at."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Tally:
    """What became of the messages of a way in. ``lost`` are those neither answered nor refused."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    server_errors: int = 0
    first_fault: str = ""

    def fail(self, what: str) -> None:
        """Count an answer of 5xx."""
        self.server_errors += 1
        self.first_fault = self.first_fault or what[:600]

    def lose(self, what: str, count: int = 1) -> None:
        """Count messages as lost; what is told of the first is kept."""
        self.lost += count
        if count:
            self.first_fault = self.first_fault or what[:600]


def chunks(count: int, size: int = CHUNK) -> Iterator[int]:
    """The sizes of the pieces that a number of messages is sent in."""
    for begun in range(0, count, size):
        yield min(size, count - begun)


class Stage:
    """A fleet that runs, each process started once."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.canary = arena.folder / "canary"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.processes = {model: stage.worker(self.arena, model) for model in MODELS}
        self.processes["gateway"] = stage.gateway(self.arena, self.port)
        self.processes["batches"] = self.arena.spawn("batches", "gateway.batches")

    def ended(self) -> list[str]:
        """The processes that do not run any more; none is ever started again."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def tracebacks(self) -> dict[str, int]:
        """How many tracebacks each log holds."""
        logs = self.arena.folder.glob("*.log")
        found = {file.stem: file.read_text(errors="replace").count("Traceback") for file in logs}
        return {name: count for name, count in found.items() if count}

    def dead(self) -> dict[bytes, bytes]:
        """Reasons by message of the dead letters, which are then removed."""
        found = dict(self.arena.dead())
        self.arena.redis.delete(keys.dead(MODEL))
        return found

    def final(self, job_ids: Iterable[str]) -> dict[str, bytes]:
        """The stored results of those jobs that have ended."""
        wanted = list(job_ids)
        stored = self.arena.redis.mget([keys.result(job_id) for job_id in wanted]) if wanted else []
        pairs = zip(wanted, stored, strict=True)
        return {job_id: result for job_id, result in pairs if celery_message.is_final(result)}

    def fetch(self, job_ids: Sequence[str], tally: Tally) -> None:
        """Wait for the results of those jobs, and count what became of each."""
        wanted = set(job_ids)  # one idempotency key may have been drawn twice
        found = dict(self.arena.client.results(wanted, timeout=ANSWER_S))
        for job_id in job_ids:
            if job_id not in found:
                tally.lose(f"job {job_id} did not end")
            elif isinstance(found[job_id], Result):
                tally.answered += 1
            else:
                tally.refused += 1
        self.arena.client.forget(wanted)

    def settle(self) -> bool:
        """Wait until nothing is queued, held or deferred. False if something is after ``ANSWER_S`` without progress."""
        left = self.arena.residue()
        deadline = time.monotonic() + ANSWER_S
        while left:
            if time.monotonic() > deadline or self.ended():
                return False
            time.sleep(0.01)
            found = self.arena.residue()
            if found != left:
                left, deadline = found, time.monotonic() + ANSWER_S
        return True
