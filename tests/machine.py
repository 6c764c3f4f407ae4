"""A fleet as it is run, for the tests: its processes, its commands and its monitor, on any Redis under any URL."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from autoscaler.launchers import records
from deploy.machine.ports import free_port
from processes import DEADLINE_S, wait_for
from producer import Settings

USER, PASSWORD = "stoker", "flowers-own"
"""Of Flower."""


class Machine:
    """A folder with a fleet file that names no Redis; every process gets its own URL in ``REDIS_URL``."""

    def __init__(self, folder: Path, tables: str) -> None:
        self.folder = folder
        self.file = folder / "fleet.toml"
        self.file.write_text(tables)
        self.state_dir = Settings.load(self.file).state_dir
        self.flower_port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    def settings(self, url: str) -> Settings:
        """The fleet's settings, as a process with that URL has them."""
        settings = Settings.load(self.file)
        return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})

    def environment(self, url: str, **more: str) -> dict[str, str]:
        return {**os.environ, "STOKER_FLEET": str(self.file), "REDIS_URL": url, "OMP_NUM_THREADS": "1", **more}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logged(self, name: str, text: str) -> bool:
        """Whether the text is in the log."""
        return text in self.log(name).read_text()

    def start(self, name: str, url: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start ``python -m command`` as a process that ends with the test."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *command],
                env=self.environment(url, **more),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def run(self, url: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m command`` to its end."""
        return subprocess.run(
            [sys.executable, "-P", "-m", *command],
            env=self.environment(url),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def flower(self, url: str) -> subprocess.Popen[bytes]:
        """Start Flower, without waiting for it."""
        more = {"FLOWER_PORT": str(self.flower_port), "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}"}
        return self.start("flower", url, "deploy.machine.flower", **more)

    def ask_flower(self, path: str, password: str | None = PASSWORD) -> tuple[int, str]:
        """Status and body of what Flower answers; status 0 while it does not."""
        pair = base64.b64encode(f"{USER}:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {pair}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.flower_port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def until_flower_knows(self, *models: str) -> None:
        """Wait until Flower has heard the workers of these models tell everything that it asks them for."""

        def known() -> bool:
            status, body = self.ask_flower("/api/workers?refresh=1")
            told = json.loads(body).items() if status == http.HTTPStatus.OK else ()
            names = {name.rpartition("-")[0] for name, about in told if "stats" in about and "conf" in about}
            return names >= set(models)

        wait_for(known, f"Flower to know the workers of {', '.join(models)}")

    def workers(self) -> Iterator[records.Record]:
        """Processes that the autoscaler started and that live."""
        yield from (record for record in records.read_all(self.state_dir / "run") if record.role == "worker")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for record in records.read_all(self.state_dir / "run"):
            records.send(record, signal.SIGKILL)
