"""``lifeline.py STOP_S COMMAND...``: runs a command for as long as its own standard input stays open.

The worker holds the other end of that pipe. The kernel closes it however the worker ends, SIGKILL included; then the
process group of the command gets SIGTERM, and ``STOP_S`` seconds later SIGKILL. Linux's ``PR_SET_PDEATHSIG`` is no
substitute: it reaches only the direct child, not the processes in which servers hold the model, and is sent when the
*thread* ends that started the child.

Run by its path in a bare interpreter, so it imports only the standard library. Exits as the command does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

POLL_S = 0.05


def main(stop_s: float, command: list[str]) -> int:
    """Run the command to its end. Returns its exit code, or 128 plus the number of the signal that killed it."""
    for told_to_all in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The worker handles these signals. Not SIG_IGN, which the command would inherit.
        signal.signal(told_to_all, lambda *_: None)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_end_with_worker, args=(server.pid, stop_s), daemon=True).start()
    code = server.wait()
    _end_group(server.pid, stop_s)  # processes that the command has left behind
    return code if code >= 0 else 128 - code


def _end_with_worker(group: int, stop_s: float) -> None:
    while os.read(0, 1):
        pass
    _end_group(group, stop_s)


def _end_group(group: int, stop_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):  # no process is left
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + stop_s
        while time.monotonic() < deadline:
            time.sleep(POLL_S)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
