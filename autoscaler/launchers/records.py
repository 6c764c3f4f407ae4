"""Process records: one JSON file per process, by which it is found and stopped without Redis or its parent.

A process is known by its pid, the boot and the ticks since then: a pid alone may have been given to another process,
and a time of creation moves with the clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from producer.contract import process_identity
from producer.contract.process_identity import ProcessIdentity

MARK = "STOKER_PROCESS"
"""In the environment of a recorded process and so of all that it starts, in whatever session and under whatever parent:
where its record is."""


@dataclass(frozen=True, slots=True)
class Record:
    """One process. ``role`` is ``worker``, or whatever else its starter runs; ``draining_since`` is in seconds since
    the boot, as the wall clock may be set.

    ``pid``, ``machine`` and ``started_ticks`` are its identity.
    """

    role: str
    name: str
    pid: int
    machine: str
    started_ticks: int
    model: str = ""
    device: str = ""
    draining_since: float | None = None
    device_uuid: str = ""

    @property
    def identity(self) -> ProcessIdentity:
        """The identity of the process."""
        return ProcessIdentity(self.pid, self.machine, self.started_ticks)


def of_process(pid: int, role: str, name: str) -> Record:
    """The record of a process. A child of this process may have ended, if it was not waited for yet.

    Raises:
        ProcessLookupError: when there is no such process any more.
    """
    identity = process_identity.of_process(pid)
    return Record(role, name, pid, identity.machine, identity.started_ticks)


def write(run_dir: Path, record: Record) -> None:
    """Write a record atomically, replacing an older one of the same name."""
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=run_dir, prefix=f".{record.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(record), file)
        Path(temporary).replace(run_dir / f"{record.name}.json")
    except BaseException:  # such as a full disk
        Path(temporary).unlink(missing_ok=True)
        raise


def read(run_dir: Path) -> list[Record]:
    """Every record, sorted by name, also of processes that have ended. A file that is no record is skipped."""
    found = []
    for file in sorted(run_dir.glob("*.json")):
        try:
            found.append(Record(**json.loads(file.read_text())))
        except (OSError, ValueError, TypeError):  # removed meanwhile, or not written by :func:`write`
            continue
    return found


def read_all(run_dir: Path) -> list[Record]:
    """The records of the processes that are alive, sorted by name."""
    return [record for record in read(run_dir) if alive(record)]


def remove(run_dir: Path, name: str) -> None:
    """Delete a process's record, if there is one."""
    (run_dir / f"{name}.json").unlink(missing_ok=True)


def alive(record: Record) -> bool:
    """Whether the recorded process still runs. A zombie does not."""
    return record.identity.lives


def mark(run_dir: Path, name: str) -> str:
    """The value of ``MARK`` for a process of that name."""
    return str((run_dir / name).absolute())


def left_behind(run_dir: Path, name: str = "") -> list[psutil.Process]:
    """The processes that the one of that name has started and that live, itself included; by default those of all."""
    own = mark(run_dir, name) if name else f"{run_dir.absolute()}{os.sep}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or is another user's
            told = process.environ().get(MARK, "")
            if (told == own or (not name and told.startswith(own))) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def started_as(record: Record, *arguments: str) -> bool:
    """Whether the process is alive, belongs to this user, and has these consecutive command-line arguments."""
    process = _process(record)
    try:
        if process is None or process.uids().real != os.getuid():
            return False
        line = process.cmdline()
    except psutil.Error:
        return False
    return any(tuple(line[n : n + len(arguments)]) == arguments for n in range(len(line)))


def send(record: Record, signum: signal.Signals) -> bool:
    """Signal the process; SIGKILL goes to its process group if it leads one.

    Returns False, without a signal, when the process has ended, even if its pid is in use again.
    """
    process = _process(record)
    if process is None:
        return False
    try:
        if signum == signal.SIGKILL and os.getpgid(record.pid) == record.pid:
            os.killpg(record.pid, signal.SIGKILL)
        else:
            process.send_signal(signum)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    return True


def terminate(record: Record, grace_s: float) -> None:
    """End the process: SIGTERM, and SIGKILL if it is still there ``grace_s`` seconds later. Waits for it."""
    process = _process(record)
    if process is None or not send(record, signal.SIGTERM):
        return
    _, living = psutil.wait_procs([process], timeout=grace_s)
    if living and send(record, signal.SIGKILL):
        psutil.wait_procs([process], timeout=10)


def _process(record: Record) -> psutil.Process | None:
    try:
        return psutil.Process(record.pid) if alive(record) else None
    except psutil.NoSuchProcess:
        return None
