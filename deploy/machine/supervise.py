"""Supervision of a process: start it or adopt the one of a killed supervisor, and restart it when it ends."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

from autoscaler.launchers import records
from autoscaler.launchers.local import last_words
from producer.contract.errors import StokerError

FIRST_S = 0.5
LONGEST_S = 30.0
STABLE_S = 60.0
"""Seconds after which a process counts as stable: its next failure is the first of a new series."""


def pause_s(failures: int) -> float:
    """The back-off in seconds after a number of consecutive failures: ``FIRST_S``, doubled up to ``LONGEST_S``."""
    return min(LONGEST_S, FIRST_S * 2.0 ** (failures - 1))


class StartFailed(StokerError):
    """A process ends each time that it is started."""


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
        self._log_begin = 0

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process that was last started; None while one is adopted."""
        return self._process

    def start(self, now: float) -> None:
        """Start the process, or adopt the one of an earlier supervisor if that still runs."""
        left = [record for record in records.read_all(self._run_dir) if record.name == self.name]
        if left:
            self._record, self._started_at = left[0], now
            self._say(f"{self.name} is still running (pid {left[0].pid}): adopted")
            return
        self._start(now)

    def tend(self, now: float, tries: float = math.inf) -> None:
        """Restart the process when it has ended and its back-off is over.

        Raises:
            StartFailed: it has ended that number of times in a row; with its exit code and the end of its log.
        """
        if self._record is not None and records.alive(self._record):
            return
        if self._retry_at is None:
            self._failures = 1 if now - self._started_at >= STABLE_S else self._failures + 1
            how, words = self._exit(), last_words(self._log, self._log_begin)
            if self._failures >= tries:
                raise StartFailed(
                    f"{self.name} does not start: it ended{how}: {words or 'without a word'}\nIts log: {self._log}"
                )
            self._retry_at = now + pause_s(self._failures)
            asked = self._process is not None and self._process.returncode == 0  # as by restart.py
            unasked = "" if asked else " unexpectedly"
            self._say(
                f"{self.name} ended{unasked}{how}; restart in {pause_s(self._failures):g} s. Its log: {self._log}"
            )
        if now >= self._retry_at:
            self._start(now)

    def _start(self, now: float) -> None:
        # Recorded at once: the process can be found even if this supervisor is killed now.
        self._started_at, self._retry_at = now, None
        self._log_begin = self._log.stat().st_size if self._log.exists() else 0
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
