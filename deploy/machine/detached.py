"""``stoker up --detach``: starts a supervisor in the background, and waits until its fleet is up."""

from __future__ import annotations

import subprocess
import sys
import time

from autoscaler.launchers import records
from producer.contract.errors import StokerError
from producer.contract.fleet.settings import Settings

from .local import ALL, TEND_S, Besides, Say, only_one, unready, where

READY_TIMEOUT_S = 90.0
"""Longest wait for the fleet since its supervisor last said something, as it does while a server loads its data."""
TOLD_EVERY_S = 5.0


def up_detached(settings: Settings, say: Say, besides: Besides = ALL) -> None:
    """Run ``up`` in the background, and return once the server, the autoscaler and Flower do their work.

    What it waits for is told every ``TOLD_EVERY_S`` seconds.

    Raises:
        AlreadyRunningError: the fleet is running already.
        StokerError: the supervisor ended, with what it logged; or the fleet is not ready in ``READY_TIMEOUT_S``.
    """
    with only_one(settings.state_dir):
        pass  # released for the supervisor, which checks again: a race costs only a less clear message
    log = settings.state_dir / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.cli", "up", *besides.options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    wait_until_up(settings, say, besides, supervisor, begin)


def wait_until_up(
    settings: Settings, say: Say, besides: Besides, supervisor: subprocess.Popen[bytes], begin: int
) -> None:
    """Wait for a supervisor in the background, whose output begins at byte ``begin`` of the log."""
    log = settings.state_dir / "logs" / "up.log"
    told_at = heard_at = time.monotonic()
    heard = begin
    missing = "the supervisor has not started"
    while (now := time.monotonic()) < heard_at + READY_TIMEOUT_S:
        if (code := supervisor.poll()) is not None:
            said = log.read_bytes()[begin:].decode(errors="replace").strip()
            raise StokerError(f"the fleet did not start (exit code {code}):\n{said}")
        if not (missing := _unready(settings, supervisor.pid, besides)):
            say("the fleet is up, in the background\n" + "\n".join(f"  {line}" for line in where(settings, besides)))
            return
        if (size := log.stat().st_size) > heard:
            heard, heard_at = size, now
        if now >= told_at + TOLD_EVERY_S:
            told_at = now
            say(f"waiting: {missing}")
        time.sleep(TEND_S)
    raise StokerError(
        f"the fleet is not ready after {READY_TIMEOUT_S:g} s: {missing}. Logs: {log.parent}; 'stoker down' stops it"
    )


def _unready(settings: Settings, pid: int, besides: Besides) -> str:
    """As ``unready``, for the supervisor with this pid: an earlier one may have left its URL file."""
    roles = {record.role: record for record in records.read_all(settings.state_dir / "run")}
    if "supervisor" not in roles or roles["supervisor"].pid != pid:
        return "the supervisor has not started"
    if missing := {"autoscaler", *besides.roles} - roles.keys():
        return f"not started yet: {', '.join(sorted(missing))}"
    return unready(settings, besides)
