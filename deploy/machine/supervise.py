"""Keeping a process running: start it, or take over what a killed supervisor left, and start it again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from autoscaler.launchers import records

FIRST_S = 0.5
LONGEST_S = 30.0
STABLE_S = 60.0
"""A process that ran this long was well: its next failure counts as the first."""


def pause_s(failures: int) -> float:
    """Seconds to wait before starting again after that many failures in a row: doubling, up to a limit."""
    return min(LONGEST_S, FIRST_S * 2.0 ** (failures - 1))


class Child:
    """One process that should run. Times are seconds of any clock that only goes forward.

    Args:
        name: its record's name and role.
        spawn: starts the process and returns at once.
        run_dir: where its record goes, so that ``stoker down`` finds it with or without a supervisor.
        log: where it writes, for the message when it dies.
        say: tells people.
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
        """Start it, unless the one of an earlier supervisor still runs."""
        left = [record for record in records.read_all(self._run_dir) if record.name == self.name]
        if left:
            self._record, self._started_at = left[0], now
            self._say(f"{self.name} still ran (pid {left[0].pid}): taken over")
            return
        self._start(now)

    def tend(self, now: float) -> None:
        """Start it again when it has ended and its pause is over."""
        if self._record is not None and records.alive(self._record):
            return
        if self._retry_at is None:
            self._failures = 1 if now - self._started_at >= STABLE_S else self._failures + 1
            self._retry_at = now + pause_s(self._failures)
            self._say(
                f"{self.name} ended unasked{self._how()}; started again in "
                f"{pause_s(self._failures):g} s. Its log: {self._log}"
            )
        if now >= self._retry_at:
            self._start(now)

    def _start(self, now: float) -> None:
        # Known by its record from the first moment: a supervisor that is killed now leaves no orphan.
        self._started_at, self._retry_at = now, None
        self._process = self._spawn()
        self._record = records.of_process(self._process.pid, self.name, self.name)
        records.write(self._run_dir, self._record)

    def _how(self) -> str:
        # Asked only now that it is known to be dead, so that there is an answer; and it buries the zombie.
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return ""
        return f" (exit code {code})" if code >= 0 else f" (signal {-code})"
