"""Orphans: processes whose parent has ended, so that the kernel has made them children of this process.

It does so where this process is PID 1, as in a container without an init, or a subreaper. An orphan that has ended
stays a zombie until it is waited for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable


def collect(started: Iterable[subprocess.Popen[bytes]]) -> int:
    """Wait for every child that has ended and that this process did not start, without blocking.

    To be called in the thread that starts processes: in another, a process that was started just now is an orphan.

    Args:
        started: the processes whose exit status is still asked for; each keeps its own.

    Returns:
        The number of orphans.
    """
    if sys.platform != "linux":
        return 0  # no process gets orphans
    own = {process.pid: process for process in started if process.returncode is None}
    orphans = 0
    while (pid := _ended_child()) is not None:
        if (process := own.pop(pid, None)) is not None:
            process.poll()  # keeps the exit status, so that the next child is seen
        else:
            os.waitpid(pid, os.WNOHANG)
            orphans += 1
    return orphans


def _ended_child() -> int | None:
    """The pid of a child that has ended and was not waited for; None without one."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # no child at all
        return None
    return None if found is None else found.si_pid
