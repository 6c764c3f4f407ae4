"""Supervision of a process: start it or adopt the one of a killed supervisor, and restart it when it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from autoscaler.launchers import records

FIRST_S = 0.5
LONGEST_S = 30.0
STABLE_S = 60.0
"""Seconds after which a process counts as stable: its next failure is the first of a new series."""


def pause_s(failures: int) -> float:
    """The back-off in seconds after a number of consecutive failures: ``FIRST_S``, doubled up to ``LONGEST_S``."""
    return min(LONGEST_S, FIRST_S * 2.0 ** (failures - 1))


class Child:
    """A supervised process. Times are seconds of a monotonic clock.

    Args:
        name: the name and the role of its record.
        spawn: starts the process and returns at once.
        run_dir: the folder of its record, by which ``stoker down`` finds it even without a supervisor.
        log: its log file, named in the message when it ends.
        say: receives messages for the user.
    """

    def __init__(
        self,
        name: str,
        spawn: Callable[[], subprocess.Popen[bytes]],
        run_dir: Path,
        log: Path,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self._spawn = spawn
        self._run_dir = run_dir
        self._log = log
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._record: records.Record | None = None
        self._started_at = 0.0
        self._failures = 0
        self._retry_at: float | None = None

    def start(self, now: float) -> None:
        """Start the process, or adopt the one of an earlier supervisor if that still runs."""
        left = [record for record in records.read_all(self._run_dir) if record.name == self.name]
        if left:
            self._record, self._started_at = left[0], now
            self._say(f"{self.name} is still running (pid {left[0].pid}): adopted")
            return
        self._start(now)

    def tend(self, now: float) -> None:
        """Restart the process when it has ended and its back-off is over."""
        if self._record is not None and records.alive(self._record):
            return
        if self._retry_at is None:
            self._failures = 1 if now - self._started_at >= STABLE_S else self._failures + 1
            self._retry_at = now + pause_s(self._failures)
            self._say(
                f"{self.name} ended unexpectedly{self._exit()}; restart in "
                f"{pause_s(self._failures):g} s. Its log: {self._log}"
            )
        if now >= self._retry_at:
            self._start(now)

    def _start(self, now: float) -> None:
        # Recorded at once: the process can be found even if this supervisor is killed now.
        self._started_at, self._retry_at = now, None
        self._process = self._spawn()
        self._record = records.of_process(self._process.pid, self.name, self.name)
        records.write(self._run_dir, self._record)

    def _exit(self) -> str:
        """The exit code or signal of the process that has ended; empty for an adopted one."""
        # poll() also reaps the zombie.
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return ""
        return f" (exit code {code})" if code >= 0 else f" (signal {-code})"
