"""The processes on a GPU that no worker has started."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from ..launchers import records

LONGEST = 80
"""Most characters of a command."""


def strangers(pids: Iterable[int]) -> dict[int, str]:
    """The processes that no worker of any fleet has started, by pid, each with its command."""
    found = {}
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if records.MARK in process.environ():
                continue
        except psutil.AccessDenied:  # another user's
            pass
        except psutil.Error:  # it has ended, or its pid is of another container
            found[pid] = "not visible here"
            continue
        found[pid] = _command(process)
    return found


def _command(process: psutil.Process) -> str:
    """The program and the script or module that it runs, without other arguments, which may be secret."""
    try:
        words = process.cmdline() or [process.name()]
        most = 3 if words[1:2] == ["-m"] else 2 if not words[1:2] or not words[1].startswith("-") else 1
        return f"{' '.join(words[:most])[:LONGEST]}, of {process.username()}"
    except psutil.Error:
        return "not visible here"
