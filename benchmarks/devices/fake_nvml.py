"""GPUs that do not exist: a stand-in for the driver's library, and the script that says how they are."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from producer.contract.errors import StokerError

SOURCE = Path(__file__).with_suffix(".c")
NO_PERMISSION, DRIVER_NOT_LOADED, LOST, VERSION_MISMATCH, UNKNOWN = 4, 9, 15, 18, 999
"""NVML errors."""
ITSELF = -1
"""In place of a GPU: the library itself."""


class NoCompilerError(StokerError):
    """There is no C compiler to build the library with."""


def build(folder: Path) -> Path:
    """Build the library. Returns the folder for ``LD_LIBRARY_PATH``.

    Raises:
        NoCompilerError: naming the cure.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("no C compiler to build the stand-in for NVML with: install gcc (apt-get install gcc)")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(target), str(SOURCE)], check=True)
    return folder


class FakeGpus:
    """The fake library's script in ``folder``, which it reads at every call, and its record of the calls."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.library = build(folder)
        self.count = count
        self._script, self._looks = folder / "script", folder / "looks"
        self._state: dict[tuple[int, str], int] = {}
        self._xids: list[tuple[int, int]] = []
        self._write()

    def environment(self) -> dict[str, str]:
        """For a process that is to see these GPUs, and no others."""
        inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        script = {"FAKE_NVML_SCRIPT": str(self._script), "FAKE_NVML_LOOKS": str(self._looks)}
        script["FAKE_NVML_GPUS"] = str(self.count)
        return {**inherited, "LD_LIBRARY_PATH": str(self.library), **script}

    def set(self, gpu: int, **measures: int) -> None:
        """Change what a GPU is like, all at once; see ``fake_nvml.c`` for the names, with ``_`` for ``:``."""
        self._state |= {(gpu, name.replace("_", ":")): value for name, value in measures.items()}
        self._write()

    def xid(self, gpu: int, number: int) -> None:
        """Let the driver tell an XID error."""
        self._xids.append((gpu, number))
        self._write()

    def looks(self, gpu: int) -> list[float]:
        """Times at which the GPU was queried, in Unix seconds."""
        lines = self._looks.read_text().splitlines() if self._looks.exists() else []
        return [float(at) for index, at in (line.split() for line in lines) if int(index) == gpu]

    def _write(self) -> None:
        lines = [f"{gpu} {name} {value}" for (gpu, name), value in self._state.items()]
        lines += [f"{gpu} xid {number}" for gpu, number in self._xids]
        fresh = self._script.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self._script)  # whole or not at all: it is read meanwhile
