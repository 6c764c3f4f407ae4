"""What is attacked: a fleet of real processes with a gateway, a neighbour that asks all the time, and attackers."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.bars import Bar, percentile
from benchmarks.chaos.arena import Arena, wait_for
from benchmarks.field import stage as field_stage
from benchmarks.gateway.fleet import answers
from deploy.machine.ports import free_port
from gateway.access import api_key_store
from gateway.access.api_key import ApiKey

Say = Callable[[str], None]

TABLES = """
[gateway]
webhook_hosts = ["127.0.0.1:*"]

[models.talk]
engine = "echo"
max_concurrency = 64
options = { task = "generate", delay_s = 0.002 }

[models.asleep]
engine = "echo"
options = { task = "generate" }
"""
"""``asleep`` has no worker: its jobs stay queued."""
QUIET_S, RATE = 5.0, 50.0
"""How long the neighbour asks before an attack, and how often a second."""
TIMEOUT_S = 30.0
RATIO, MEMORY_MB = 3.0, 300.0
"""The most that a neighbour's p99 may grow; the most memory of a gateway."""


@dataclass(slots=True)
class Watched:
    """What a neighbour met: seconds of each answer, and what came instead of one."""

    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """Seconds; as long as an answer is awaited at most, if there was none."""
        return percentile(self.seconds, 0.99) or TIMEOUT_S


class Neighbour:
    """A tenant that asks for one word at a time, every other time through a new connection."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._headers = port, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._kept: http.client.HTTPConnection | None = None

    def watch(self, until: Callable[[], bool]) -> Watched:
        """Ask ``RATE`` times a second until told to stop. A late answer does not make the next question late."""
        found, began = Watched(), time.perf_counter()
        while not until():
            due = began + (len(found.seconds) + len(found.refused)) / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            asked = time.perf_counter()
            try:
                self._ask(fresh=len(found.seconds) % 2 == 0)
            except (OSError, http.client.HTTPException) as error:
                found.refused.append(f"{type(error).__name__}: {error}")
            else:
                found.seconds.append(time.perf_counter() - asked)
        return found

    def _ask(self, *, fresh: bool) -> None:
        if fresh:
            with contextlib.closing(self._connection()) as connection:
                self._post(connection)
            return
        self._kept = self._kept or self._connection()
        try:
            self._post(self._kept)
        except (OSError, http.client.HTTPException):
            self._kept.close()
            self._kept = None
            raise

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)

    def _post(self, connection: http.client.HTTPConnection) -> None:
        body = json.dumps({"model": "talk", "prompt": "hello", "max_tokens": 1})
        connection.request("POST", "/v1/completions", body, self._headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"{answer.status} {content[:200]!r}")


class Fleet:
    """A server, a worker of ``talk``, and a gateway; keys for tenants."""

    def __init__(self, folder: Path, tables: str = TABLES, descriptors: int = 1024) -> None:
        # As 'stoker up' runs its server: what is measured beside is not its disk.
        config = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "100"}
        self.arena = Arena(folder, lease_s=30, options="delay_s = 0", tables=tables, config=config)
        self.port = free_port()
        self._descriptors = descriptors
        self._gateway: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.arena.__enter__()
        try:
            field_stage.worker(self.arena, "talk")
            prefix = ("prlimit", f"--nofile={self._descriptors}:{self._descriptors}")
            self._gateway = self.arena.spawn(
                "gateway", "deploy.cli", "gateway", "--port", str(self.port), prefix=prefix
            )
            wait_for(lambda: answers(f"http://127.0.0.1:{self.port}/readyz"), f"see {self.arena.log('gateway')}")
        except BaseException:
            self.arena.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.arena.close()

    def key(self, tenant: str, **limits: Any) -> str:
        """Make an API key of a tenant."""
        secret, kept = ApiKey.new(tenant, **limits)
        api_key_store.add(self.arena.redis, secret, kept)
        return secret

    def neighbour(self) -> Neighbour:
        """The tenant whose latency is measured."""
        return Neighbour(self.port, self.key("neighbour"))

    def memory_mb(self) -> float:
        """Resident memory of the gateway, in MB.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._gateway is not None
        if self._gateway.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self._gateway.returncode}: see {self.arena.log('gateway')}")
        return float(psutil.Process(self._gateway.pid).memory_info().rss) / 1e6

    @contextlib.contextmanager
    def attack(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """An attacker at work; see ``attackers.py``. It takes only what is left of the processors, as it would work
        on a machine of its own."""
        prefix = ("nice", "-n", "19")
        process = self.arena.spawn(
            f"attack-{name}", "benchmarks.walls.attackers", name, str(self.port), *arguments, prefix=prefix
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def during(self, neighbour: Neighbour, process: subprocess.Popen[bytes], seconds: float) -> tuple[Watched, float]:
        """What a neighbour meets during an attack, and the most memory of the gateway in that time, in MB.

        Raises:
            RuntimeError: the attacker or the gateway has ended.
        """
        most, end = 0.0, time.monotonic() + seconds
        stop = threading.Event()
        found: list[Watched] = []
        asking = threading.Thread(target=lambda: found.append(neighbour.watch(stop.is_set)))
        asking.start()
        try:
            while time.monotonic() < end:
                most = max(most, self.memory_mb())
                if process.poll() is not None:
                    raise RuntimeError(f"the attacker ended: see {self.arena.folder}/attack-*.log")
                time.sleep(0.05)
        finally:
            stop.set()
            asking.join()
        return found[0], most


def quiet(neighbour: Neighbour, seconds: float = QUIET_S) -> Watched:
    """What a neighbour meets when nobody attacks."""
    end = time.monotonic() + seconds
    return neighbour.watch(lambda: time.monotonic() > end)


def grown(name: str, without: Watched, within: Watched) -> Bar:
    """The bar on a neighbour's p99 during an attack over that before it."""
    note = f"p99 {1000 * without.p99:.1f} ms before, {1000 * within.p99:.1f} ms during, of {len(within.seconds)}"
    return Bar(f"{name}: p99 of a neighbour, times that without", round(within.p99 / without.p99, 2), RATIO, note=note)


def python() -> str:
    """The interpreter, for fleet files."""
    return sys.executable
