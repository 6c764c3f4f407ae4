"""Stopping what runs here, from the process records alone: no parent, no Redis and no supervisor is needed.

The order. The gateway goes first, while there is somebody to cancel what its clients wait for. The batch process goes
while it can still write down what has come. Then the autoscaler, or it would start the workers again that are drained
after it. Workers go while the server still serves, so that they can finish, store results and hand back what they
hold. Flower watches until the workers are gone. The server goes last, with its append-only file written.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autoscaler.launchers import records
from producer.contract.settings import Settings

ORDER = ("supervisor", "gateway", "batches", "autoscaler", "worker", "flower", "server")
POLL_S = 0.05
KILLED_S = 10.0
"""How long a process that got SIGKILL is waited for."""


def graces(settings: Settings) -> dict[str, float]:
    """Seconds that each role gets between SIGTERM and SIGKILL."""
    others = {
        "gateway": 15.0,
        "batches": 15.0,
        "autoscaler": 10.0,
        "worker": settings.scaling.drain_s + 5.0,
        "flower": 5.0,
        "server": 15.0,
    }
    # The supervisor stops all the others itself when it is told to, and so needs the time of all of them.
    return {"supervisor": sum(others.values()) + 5.0, **others}


def stop_all(
    settings: Settings,
    say: Callable[[str], None],
    grace: Mapping[str, float],
    roles: Sequence[str] = ORDER,
) -> int:
    """Stop every recorded process of those roles, one role after the other, and forget them.

    Returns:
        How many processes were running.
    """
    run_dir = settings.state_dir / "run"
    stopped = 0
    for role in roles:
        stopped += _stop_role(run_dir, role, grace[role], say)
    settings.url_file.unlink(missing_ok=True)
    clear(run_dir)
    return stopped


def clear(run_dir: Path) -> None:
    """Remove the folder of the records when none is left."""
    if not any(run_dir.glob("*.json")):  # what else is there was half written when its writer was killed
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


def _wait(living: list[records.Record], patience_s: float) -> list[records.Record]:
    """Those that still live after so long."""
    deadline = time.monotonic() + patience_s
    while (living := [one for one in living if records.alive(one)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return living
