"""A directory in which ``stoker up`` is run as a person runs it, and what is left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from autoscaler.launchers import records
from processes import wait_for
from producer import Client, Settings

FLEET = """
[models.parrot]
engine = "echo"

[[devices]]
name = "cpu:0"

[scaling]
drain_s = 10
"""
MARK = "STOKER_TEST_OF_UP_AND_DOWN"
"""In the environment of everything that a test starts, so that what is left over can be found."""


class Home:
    """A directory with a fleet file, and the commands given in it."""

    def __init__(self, folder: Path, tables: str = FLEET) -> None:
        self.folder = folder
        (folder / "fleet.toml").write_text(tables)
        self.settings = Settings.load(folder / "fleet.toml")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOKER_", "REDIS_"))}
        self.environment = {**kept, MARK: str(folder), "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "deploy.cli", *arguments]

    def stoker(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        files = sorted(self.settings.state_dir.glob("**/*.log"))
        return "".join(f"\n--- {file.name}\n{file.read_text()[-3000:]}" for file in files)

    def pid(self, name: str) -> int:
        """The pid of the part of the fleet that has this name, once it lives."""

        def found() -> int:
            living = records.read_all(self.settings.state_dir / "run")
            return next((record.pid for record in living if record.name == name), 0)

        return wait_for(found, f"{name} to live")

    def kill(self, *names: str) -> None:
        """SIGKILL all of them at one blow."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(psutil.pid_exists(pid) and living(pid) for pid in pids), f"{names} to be dead")

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.stoker("status", "--json"))
        return told

    def serves(self) -> None:
        """A job goes in, and its answer comes out."""
        with Client(self.settings) as client:
            assert client.result(client.submit("parrot", "hello"), timeout=60).output == "hello"

    def processes(self) -> dict[int, str]:
        """Command lines, by pid, of the processes that descend from our commands, found by their environment."""
        found = {}
        for process in psutil.process_iter(["pid"]):
            try:
                if process.environ().get(MARK) == str(self.folder) and living(process.pid):
                    found[process.pid] = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def leftovers(self) -> list[str]:
        """What runs of it."""
        return list(self.processes().values())

    def end(self) -> None:
        """Stop it; what does not stop is killed, and the test's failure."""
        subprocess.run(self.command("down"), cwd=self.folder, env=self.environment, capture_output=True, timeout=120)
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert list(left.values()) == []

    def assert_nothing_is_left(self) -> None:
        assert self.leftovers() == []
        assert not (self.settings.state_dir / "run").exists()
        assert not self.settings.url_file.exists()


def living(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
