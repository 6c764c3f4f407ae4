"""``lifeline.py STOP_S COMMAND...``: runs a command for as long as its own standard input stays open.

The worker holds the other end of that pipe. The kernel closes it however the worker ends, SIGKILL included; then the
command and all of its descendants get SIGTERM, and ``STOP_S`` seconds later SIGKILL. Linux's ``PR_SET_PDEATHSIG`` is no
substitute: it reaches only the direct child, not the processes in which servers hold the model, and is sent when the
*thread* ends that started the child.

Descendants are also daemons and processes in sessions of their own, such as those of mpirun and Ray: this process is
a subreaper, which the kernel makes the parent of every orphan below it.

Run by its path in a bare interpreter, so it imports only the standard library. Exits as the command does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

POLL_S = 0.05
PR_SET_CHILD_SUBREAPER = 36
"""Of prctl(2)."""
STATE, PARENT = 0, 1
"""Fields of /proc/PID/stat after the name of the program."""
ENDED = ("Z", "X")
KILLED_S = 10.0
"""How long to wait for processes that got SIGKILL."""


def main(stop_s: float, command: list[str]) -> int:
    """Run the command to its end. Returns its exit code, or 128 plus the number of the signal that killed it."""
    for told_to_all in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The worker handles these signals. Not SIG_IGN, which the command would inherit.
        signal.signal(told_to_all, lambda *_: None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_end_with_worker, args=(server.pid, stop_s), daemon=True).start()
    ended, status = os.wait()
    while ended != server.pid:  # an orphan that this process inherited
        ended, status = os.wait()
    code = server.returncode = os.waitstatus_to_exitcode(status)
    _end_all(server.pid, stop_s)  # processes that the command has left behind
    return code if code >= 0 else 128 - code


def _end_with_worker(group: int, stop_s: float) -> None:
    while os.read(0, 1):
        pass
    _end_all(group, stop_s)


def _end_all(group: int, stop_s: float) -> None:
    """Send SIGTERM to all descendants, and SIGKILL ``stop_s`` seconds later. Returns when they have ended."""
    _signal(group, signal.SIGTERM)
    deadline = time.monotonic() + stop_s
    while _live(group) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    deadline = time.monotonic() + KILLED_S
    while _live(group) and time.monotonic() < deadline:
        _signal(group, signal.SIGKILL)  # every time: a process may have been started since
        time.sleep(POLL_S)


def _live(group: int) -> bool:
    if (found := _descendants()) is not None:
        return bool(found)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def _signal(group: int, signum: signal.Signals) -> None:
    found = _descendants()
    with contextlib.suppress(ProcessLookupError):
        if found is None:
            os.killpg(group, signum)
    for pid in found or ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def _descendants() -> list[int] | None:
    """The processes below this one that have not ended; None where there is no /proc to ask."""
    children: dict[int, list[int]] = {}
    ended = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            children.setdefault(int(fields[PARENT]), []).append(pid)
            if fields[STATE] in ENDED:
                ended.add(pid)
    if not children:
        return None
    below, found = [os.getpid()], []
    while below:
        own = children.get(below.pop(), [])
        below += own
        found += [pid for pid in own if pid not in ended]
    return found


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
