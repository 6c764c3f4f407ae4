"""What a scenario plays in: a server, a fleet file, worker processes, and the certainty that all of it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
import redis as redis_py

from deploy.machine.server import Server
from producer import Client, Settings
from producer.contract import heartbeat, keys
from producer.contract.errors import BrokerUnavailable
from producer.contract.heartbeat import WorkerState
from producer.contract.message.job import Job

T = TypeVar("T")

MODEL = "echo"
AUDITED = {"appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
OUTAGE = (redis_py.ConnectionError, redis_py.TimeoutError)
"""What a client sees of a server that is away. ``BusyLoadingError`` is a ``ConnectionError``."""


def wait_for(condition: Callable[[], T | None], what: str, deadline_s: float = 120.0) -> T:
    """Poll a condition until it holds, through outages of the server, and return what it returned.

    Raises:
        TimeoutError: naming what was waited for.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OUTAGE:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"still waiting after {deadline_s:g} s for {what}")


class Arena:
    """A fleet of the echo engine on a server of its own, which syncs every write to disk and never rewrites its
    append-only file: so the file is a complete record of what was written, however often the server was killed.

    Args:
        tables: further tables of the fleet file.
        config: further settings of the server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float,
        options: str,
        max_concurrency: int = 4,
        max_losses: int = 3,
        replicas: int = 1,
        tables: str = "",
        config: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.server = Server(folder / "server", **{**AUDITED, **(config or {})})  # type: ignore[arg-type]  # port is not a text
        self.file = folder / "fleet.toml"
        self.file.write_text(
            f'[redis]\nurl = "{self.server.url}"\nlease_s = {lease_s}\nmax_losses = {max_losses}\n'
            f'[models.{MODEL}]\nengine = "echo"\nmax_concurrency = {max_concurrency}\n'
            f"min_replicas = {replicas}\nmax_replicas = {replicas}\n"
            f'options = {{ {options}, journal = "{self.journal}" }}\n{tables}\n'
        )
        self.settings = Settings.load(self.file)
        self.redis: Any = redis_py.Redis.from_url(self.server.url, socket_timeout=5)
        self.client = Client(self.settings)
        self.run_dir = self.settings.state_dir / "run"
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def spawn(
        self, name: str, *arguments: str, url: str | None = None, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a Python module (``arguments``) of this fleet, in a session of its own so that only we signal it."""
        environment = {**os.environ, "STOKER_FLEET": str(self.file), "OMP_NUM_THREADS": "1"}
        if url is not None:
            environment["STOKER_REDIS__URL"] = url
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_worker(self, name: str, url: str | None = None, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a worker, without waiting for it."""
        arguments = ("workers", "--model", MODEL, "--device", "cpu:0", "--name", name)
        return self.spawn(name, *arguments, url=url, prefix=prefix)

    def worker(self, name: str, url: str | None = None, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready."""
        process = self.start_worker(name, url, prefix)
        wait_for(lambda: self.is_ready(name), f"worker {name}: see {self.log(name)}")
        return process

    def is_ready(self, name: str) -> bool:
        """Whether a worker says that it takes jobs."""
        return any((beat.name, beat.state) == (name, WorkerState.READY) for beat in heartbeat.read_all(self.redis))

    def jobs(self, numbers: Iterable[int], tier: str = "batch") -> list[Job]:
        """Jobs that echo their number, each with an idempotency key: a submission may be repeated."""
        return [self.client.job(MODEL, f"job {n}", tier=tier, idempotency_key=str(n)) for n in numbers]

    def submit(self, jobs: list[Job], deadline_s: float = 60.0) -> list[str]:
        """Queue jobs, again and again until the server has them: their keys let each in once."""
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                return self.client.submit_many(jobs)
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def in_flight(self) -> dict[str, bytes]:
        """Messages by lease."""
        return {lease.decode(): message for lease, message in self.redis.hgetall(keys.inflight(MODEL)).items()}

    def residue(self) -> dict[str, int]:
        """How many jobs are left in each place where a job may be; empty when nothing is stuck."""
        places = {f"queue {keys.queue(MODEL, tier)}": self.redis.llen(keys.queue(MODEL, tier)) for tier in self.tiers}
        places["in flight"] = self.redis.hlen(keys.inflight(MODEL))
        places["leases"] = self.redis.zcard(keys.leases(MODEL))
        places["suspects"] = self.redis.llen(keys.suspects(MODEL))
        places["deferred"] = self.redis.zcard(keys.deferred(MODEL))
        return {place: count for place, count in places.items() if count}

    @property
    def tiers(self) -> tuple[str, ...]:
        """The model's tiers."""
        return self.settings.model(MODEL).tiers

    def dead(self) -> list[tuple[bytes, bytes]]:
        """The dead letters, as (message, reason)."""
        return [(fields[b"message"], fields[b"reason"]) for _, fields in self.redis.xrange(keys.dead(MODEL))]

    def log(self, name: str) -> Path:
        """What a process wrote."""
        return self.folder / f"{name}.log"

    def _descendants(self) -> list[psutil.Process]:
        """Whatever runs under this fleet file, also a worker whose autoscaler was killed before it noted it down."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("STOKER_FLEET") == str(self.file):
                    found.append(process)
        return found

    def close(self) -> None:
        """End everything that was started here, or by the autoscaler that was."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()  # also ends what is stopped
            process.wait()
        for descendant in self._descendants():
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
        self.client.close()
        self.redis.close()
        self.server.kill()
