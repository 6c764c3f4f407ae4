"""Process identity: independent of the wall clock, of the host name and of the reuse of pids."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ZOMBIE_OR_DEAD = ("Z", "X")
STATE, START_TIME = 0, 19
"""Fields of /proc/PID/stat after the name of the program: 3 and 22 of proc(5)."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """The identity of a process, valid also after its end.

    ``machine`` is the boot and pid namespace that its pid belongs to (:func:`this_machine`). ``started_ticks`` are
    clock ticks, 100 a second, from the boot to its start; without a /proc, from 1970.
    """

    pid: int
    machine: str
    started_ticks: int

    @property
    def lives(self) -> bool:
        """Whether this very process still runs here. A zombie does not."""
        if self.machine != this_machine():
            return False
        try:
            started_ticks, runs = _look(self.pid)
        except ProcessLookupError:
            return False
        return runs and started_ticks == self.started_ticks

    @property
    def age_s(self) -> float:
        """Seconds since it was started, whatever the clock was set to meanwhile. 0 for one of another boot."""
        return max(0.0, since_boot_s() - self.started_ticks / TICKS_PER_S) if self.machine == this_machine() else 0.0


def of_process(pid: int) -> ProcessIdentity:
    """The identity of a process; of a child of ours also after its end, until it is waited for.

    Raises:
        ProcessLookupError: when there is none.
    """
    return ProcessIdentity(pid, this_machine(), _look(pid)[0])


@lru_cache(maxsize=1)
def this_machine() -> str:
    """The boot of the kernel and the pid namespace of this process."""
    try:
        return f"{BOOT_ID.read_text().strip()}/{(PROC / 'self/ns/pid').readlink().name}"
    except OSError:  # not Linux; what is left outlives a boot, but no pid of before it has the same start
        return str(uuid.UUID(int=uuid.getnode()))


def _look(pid: int) -> tuple[int, bool]:
    """Start of a process in ticks, and whether it is more than a zombie."""
    try:
        # The name stands in brackets and may hold any character, brackets too.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if BOOT_ID.exists():
            raise ProcessLookupError(f"no process has the pid {pid}") from None
        return _look_without_proc(pid)
    return int(fields[START_TIME]), fields[STATE] not in ZOMBIE_OR_DEAD


def _look_without_proc(pid: int) -> tuple[int, bool]:
    import psutil  # what supervises or runs workers has it; a client, which need not, never looks

    try:
        process = psutil.Process(pid)
        return round(process.create_time() * TICKS_PER_S), process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"no process has the pid {pid}") from None


def since_boot_s() -> float:
    """Seconds of the clock by which starts of processes are counted: since the boot; without a /proc, since 1970."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if BOOT_ID.exists() else time.time()
