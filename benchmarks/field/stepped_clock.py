"""A clock that a test steps under running processes, as NTP, an administrator or a resumed machine does."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """The wall clock of every process that is started with ``environment``, and of what those start."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None, "no C compiler to build the stepped clock with: install gcc (apt-get install gcc)"
        folder.mkdir(parents=True, exist_ok=True)
        self._library, self._offset = folder / "stepped_clock.so", folder / "offset"
        command = [
            compiler,
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Werror",
            "-o",
            str(self._library),
            str(SOURCE),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        self._offset.write_bytes(struct.pack("l", 0))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment, beside the rest."""
        return {"LD_PRELOAD": str(self._library), "STEPPED_CLOCK": str(self._offset)}

    def set(self, seconds: int) -> None:
        """Step the clock of all processes to ``seconds`` from the true time, from now on."""
        with self._offset.open("r+b") as file:  # in place: it is mapped
            os.pwrite(file.fileno(), struct.pack("l", seconds), 0)
