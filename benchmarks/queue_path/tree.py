"""A worker as a tree of processes: its CPU time, and how it is frozen and killed as one."""

from __future__ import annotations

from contextlib import suppress

import psutil


class Tree:
    """A process and all that descends from it, now."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """User and system time so far, in seconds: of the living, and of the dead that were waited for."""
        total = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def freeze(self) -> None:
        """Stop all of it, so that a queue can fill up."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def kill(self) -> None:
        """SIGKILL all processes at one moment, as the loss of their machine would. Running jobs are lost."""
        with suppress(psutil.NoSuchProcess):
            self.freeze()  # so that no process starts another child, or sees one die, meanwhile
            processes = self._all()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)

    def _all(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [self.root, *self.root.children(recursive=True)]
        return []
