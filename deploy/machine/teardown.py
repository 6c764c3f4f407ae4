"""Stopping the fleet of this machine from its process records alone, without a parent, Redis or a supervisor.

The order, after the supervisor:

1. The gateway, while workers can still cancel the jobs of its clients.
2. The batch process, while it can still write the results that have arrived.
3. The autoscaler, which would otherwise replace the drained workers.
4. The workers, while the server still answers, so that they can store results and give back their jobs.
5. Flower, which shows the workers until then.
6. The server, which writes its append-only file.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from autoscaler.launchers import records
from autoscaler.launchers.local import LINGER_S
from producer.contract.fleet.settings import Settings

ORDER = ("supervisor", "gateway", "batches", "autoscaler", "worker", "flower", "server")
POLL_S = 0.05
KILLED_S = 10.0
"""Longest wait for a process to end after SIGKILL, in seconds."""


def graces(settings: Settings) -> dict[str, float]:
    """The grace of each role: seconds between SIGTERM and SIGKILL."""
    others = {
        "gateway": 15.0,
        "batches": 15.0,
        "autoscaler": 10.0,
        "worker": settings.scaling.drain_s + 5.0,
        "flower": 5.0,
        "server": 15.0,
    }
    # On SIGTERM the supervisor stops all the others, so it needs the sum of their graces.
    return {"supervisor": sum(others.values()) + 5.0, **others}


def stop_all(
    settings: Settings,
    say: Callable[[str], None],
    grace: Mapping[str, float],
    roles: Sequence[str] = ORDER,
) -> int:
    """Stop every recorded process of some roles, one role after the other, and remove their records.

    Returns:
        The number of processes that were running.
    """
    run_dir = settings.state_dir / "run"
    stopped = 0
    for role in roles:
        stopped += _stop_role(run_dir, role, grace[role], say)
        if role == "worker":
            _end_left_behind(run_dir, min(grace[role], LINGER_S), say)
    settings.url_file.unlink(missing_ok=True)
    clear(run_dir)
    return stopped


def clear(run_dir: Path) -> None:
    """Remove the folder of the records when it holds no record."""
    if not any(run_dir.glob("*.json")):  # other files are incomplete records of killed writers
        shutil.rmtree(run_dir, ignore_errors=True)


def _stop_role(run_dir: Path, role: str, grace_s: float, say: Callable[[str], None]) -> int:
    every = [record for record in records.read(run_dir) if record.role == role]
    living = [record for record in every if records.alive(record)]
    if living:
        what = role if role == "supervisor" or len(living) == 1 else f"{len(living)} {role}s"
        say(f"stopping {what} (pid {', '.join(str(record.pid) for record in living)})")
    for record in living:
        records.send(record, signal.SIGTERM)
    left = _wait(living, grace_s)
    for record in left:
        say(f"{record.name} (pid {record.pid}) did not end within {grace_s:g} s: killed")
        records.send(record, signal.SIGKILL)
    for record in _wait(left, KILLED_S):
        say(f"{record.name} (pid {record.pid}) does not end even when killed: the kernel holds it")
    for record in every:
        records.remove(run_dir, record.name)
    return len(living)


def _end_left_behind(run_dir: Path, grace_s: float, say: Callable[[str], None]) -> None:
    """End what workers have started, wherever it has gone; a server gets its worker's grace before."""
    deadline = time.monotonic() + grace_s
    while (left := records.left_behind(run_dir)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in left:
        with contextlib.suppress(psutil.Error):
            say(f"a worker left {process.name()} (pid {process.pid}) behind: killed")
            process.kill()
    psutil.wait_procs(left, timeout=KILLED_S)


def _wait(living: list[records.Record], patience_s: float) -> list[records.Record]:
    """The processes still alive after ``patience_s`` seconds."""
    deadline = time.monotonic() + patience_s
    while (living := [one for one in living if records.alive(one)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return living
