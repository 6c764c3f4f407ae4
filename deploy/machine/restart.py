"""Restart of one process of a machine's fleet, which its supervisor starts again."""

from __future__ import annotations

import time

from autoscaler.launchers import records
from producer.contract.errors import StokerError
from producer.contract.fleet.settings import Settings

from . import teardown
from .supervise import LONGEST_S

POLL_S = 0.05
START_S = LONGEST_S + 15.0
"""Longest wait for the new process, in seconds: the supervisor's back-off, and the start."""


def restart(settings: Settings, name: str) -> int:
    """End the process of that name, and wait until the supervisor has started it again. Returns the new pid.

    Raises:
        StokerError: no supervisor runs here, it runs no such process, or the process is not started again.
    """
    run_dir = settings.state_dir / "run"
    before = _named(settings, name)
    if _named(settings, "supervisor") is None:
        raise StokerError(f"no 'stoker up' runs here ({run_dir}), which would start {name} again: use 'stoker up'")
    if before is None:
        raise StokerError(
            f"{name} does not run here: 'stoker up' was started without it, or is about to start it again; its log: "
            f"{settings.state_dir / 'logs' / f'{name}.log'}"
        )
    records.terminate(before, teardown.graces(settings)[name])
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (after := _named(settings, name)) is not None and after.identity != before.identity:
            return after.pid
        time.sleep(POLL_S)
    raise StokerError(f"{name} has ended, and was not started again within {START_S:g} s: look at 'stoker up'")


def _named(settings: Settings, name: str) -> records.Record | None:
    return next((one for one in records.read_all(settings.state_dir / "run") if one.name == name), None)
