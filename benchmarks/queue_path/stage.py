"""Where one contestant plays: a server of its own, its driver, its worker, and the certainty that all of them end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.machine.server import Server

from .roster import APPLICATIONS, CHECKOUT, Contestant
from .tree import Tree

WARM_UP = 100
"""Jobs before anything is measured: imports, connections and scripts are loaded then."""

DRAIN_S = 300.0
LOOK_S = 0.02
"""How often the driver looks for results."""

FLEET = """
[redis]
url = "{url}"
lease_s = {redeliver_s}
max_losses = 1000
[models.echo]
engine = "echo"
options = {{ delay_s = {nap_s} }}
"""


class Stage:
    """Server, driver and worker of one contestant, in a folder with their logs.

    Args:
        nap_s: how long each job sleeps.
        redeliver_s: after how long what a silent worker holds shall go to another, where that can be said.
    """

    def __init__(self, contestant: Contestant, folder: Path, nap_s: float = 0.0, redeliver_s: float = 60.0) -> None:
        folder.mkdir(parents=True)
        self.contestant = contestant
        self.folder = folder
        self.server = Server(folder / "server")
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text(FLEET.format(url=self.server.url, nap_s=nap_s, redeliver_s=redeliver_s))
        self._environment = {
            **os.environ,
            "PATH": f"{contestant.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{APPLICATIONS}" if not contestant.environment else str(APPLICATIONS),
            "OMP_NUM_THREADS": "1",
            "STOKER_FLEET": str(self.fleet),
            "RQ_REDIS_URL": self.server.url,
            "QUEUE_PATH_URL": self.server.url,
            "QUEUE_PATH_NAP_S": str(nap_s),
            "QUEUE_PATH_REDELIVER_S": str(redeliver_s),
            "QUEUE_PATH_VARIANT": contestant.variant,
        }
        self._driver: subprocess.Popen[str] | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.server.start()
            with (self.folder / "driver.log").open("ab") as log:
                self._driver = subprocess.Popen(
                    [str(self.contestant.bin / "python"), str(APPLICATIONS / "driver.py"), self.contestant.application],
                    env=self._environment, cwd=self.folder, text=True, bufsize=1,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                )  # fmt: skip
            self.start_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_worker(self) -> None:
        """Start a worker; what it says goes to ``worker.log``."""
        program, *arguments = self.contestant.worker
        with (self.folder / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(
                [str(self.contestant.bin / program), *arguments],
                env=self._environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def worker(self) -> Tree:
        """The worker's processes."""
        assert self._worker is not None
        return Tree(self._worker.pid)

    def kill_worker(self) -> None:
        """SIGKILL it with all its children."""
        if self._worker is not None:
            if self._worker.poll() is None:
                self.worker.kill()
            self._worker.wait()
            self._worker = None

    def tell(self, do: str, **request: Any) -> dict[str, Any]:
        """Have the driver do something, and return its answer.

        Raises:
            RuntimeError: it ended; its log is named.
        """
        assert self._driver is not None
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        try:
            self._driver.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._driver.stdin.flush()
            answer = self._driver.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"the driver of {self.contestant.name} ended: see {self.folder / 'driver.log'}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def enqueue(self, jobs: int, way: str = "enqueue") -> float:
        """Queue jobs in one of the contestant's ways; how long that took, in seconds."""
        took_s: float = self.tell("enqueue", way=way, jobs=jobs)["took_s"]
        return took_s

    def drain(self) -> None:
        """Wait until all that was queued has its result.

        Raises:
            TimeoutError: naming the logs.
        """
        deadline = time.monotonic() + DRAIN_S
        while left := self.tell("left", all=False)["left"]:
            if time.monotonic() > deadline or (self._worker is not None and self._worker.poll() is not None):
                raise TimeoutError(f"{self.contestant.name} left {left} jobs undone: see {self.folder}")
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End everything."""
        self.kill_worker()
        if self._driver is not None:
            self._driver.kill()
            self._driver.communicate()
        self.server.kill()
