"""A dry run: the autoscaler decides as usual and prints what it would do. It starts, drains and writes nothing, with
one exception: the first reader of a queue stores since when its oldest job waits.

It takes no lease: with one, it would stop the fleet's own autoscaler. Both then see the same fleet, and a dry run with
another ``fleet.toml`` shows what that file would change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .launchers import records
from .launchers.local import launched, launcher_id

if TYPE_CHECKING:
    from pathlib import Path

    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import JournalEntry, PublishedNode, PublishedSizes

    from .devices.quarantine import Health
    from .launchers.protocol import Ended, Launched, Placement

AGAIN_AFTER_S = 60.0
"""Seconds for which a start or drain must be absent before it is printed again. It is never carried out, and so is
decided in every round."""
VERBS = {
    "start": "start",
    "drain": "drain",
    "hold": "hold back",
    "lost": "note the loss of",
    "retry": "retry",
    "quarantine": "quarantine",
    "release": "take back",
}
"""The verb for each action of :class:`~producer.contract.published.JournalEntry`."""


class DryRunLease:
    """A lease that is always held and excludes no other autoscaler; see :class:`~autoscaler.leader.LeaderLease`."""

    ttl_s = 0.0

    def confirm(self) -> bool:
        """True."""
        return True

    def renew(self) -> bool:
        """True."""
        return True

    def holder(self) -> str:
        """Empty: no autoscaler is excluded."""
        return ""

    def release(self) -> None:
        """Does nothing."""


class DryRunLauncher:
    """Lists the workers that the local launcher of this fleet started; starts and drains none.

    Args:
        state_dir: the fleet's state directory, with the records in ``run/NAME.json``. It is only read.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    @property
    def id(self) -> str:
        """The id of the local launcher of this fleet."""
        return launcher_id(self._state_dir)

    def start(self, placement: Placement) -> str:
        """Starts nothing. Returns a description in place of a name."""
        return f"a new {placement.model}"

    def drain(self, name: str, grace_s: float) -> None:
        """Does nothing."""

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        """Does nothing."""

    def list(self) -> Sequence[Launched]:
        """The workers whose processes are alive."""
        return [launched(one) for one in records.read_all(self._state_dir / "run") if one.role == "worker"]

    def ended(self) -> Sequence[Ended]:
        """Empty: the fleet's own autoscaler handles workers that ended."""
        return []


class ConsoleSink:
    """Prints journal entries; publishes and keeps nothing; see :class:`~autoscaler.journal.JournalSink`.

    Args:
        say: called with each line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: dict[tuple[str, str, str], float] = {}

    def append(self, entry: JournalEntry) -> None:
        """Print an entry. A start or drain that was decided less than :data:`AGAIN_AFTER_S` seconds ago is left out."""
        if entry.action in ("start", "drain"):
            key = entry.action, entry.model, entry.worker
            last, self._last[key] = self._last.get(key), entry.at
            if last is not None and entry.at - last < AGAIN_AFTER_S:
                return
        where = f"on {entry.device}" if entry.worker and entry.device else entry.device
        target = " ".join(part for part in (entry.worker or entry.model, where) if part)
        at = time.strftime("%H:%M:%S", time.localtime(entry.at))
        self._say(f"{at} would {VERBS[entry.action]} {target}: {entry.reason}")
        if entry.inputs:
            self._say(f"         {json.dumps(entry.inputs)}")

    def publish(self, key: str, record: PublishedNode | PublishedSizes, ttl_s: float) -> None:
        """Does nothing."""

    def keep(self, key: str, health: Health) -> None:
        """Does nothing."""
