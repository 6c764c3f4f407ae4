"""A dry run: the autoscaler decides as ever, and tells what it would do. Nothing is started, drained or written, but
for the note since when a queue waits, which everybody leaves who looks at it first.

It needs no lease: with one, it would keep the fleet's own autoscaler from its work. Both then see the same fleet,
and a dry run with another ``fleet.toml`` shows what that one would change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from .journal import Journal
from .launchers import records
from .launchers.local import LocalLauncher, launched
from .leader import Leader

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import JournalEntry, PublishedNode, PublishedSizes

    from .actions.decision import Drain, Start
    from .devices.quarantine import Health
    from .launchers.protocol import Ended, Launched, Placement

AGAIN_AFTER_S = 60.0
"""What would be done is never done, and so decided in every round. It is told again when it was not for so long."""


class NoLease(Leader):
    """Leads nobody, and so need not ask."""

    def renew(self) -> bool:
        """Always."""
        return True

    def confirm(self) -> bool:
        """Always."""
        return True

    def release(self) -> None:
        """There is nothing to give up."""


class DryRunLauncher(LocalLauncher):
    """Sees the workers of this fleet here as its launcher does, and leaves them and their records as they are."""

    def start(self, placement: Placement) -> str:
        """No worker comes of it."""
        return f"a new {placement.model}"

    def drain(self, name: str, grace_s: float) -> None:
        """Nobody is told."""

    def adopt(self, beats: Iterable[Heartbeat]) -> None:
        """Nothing is written."""

    def list(self) -> Sequence[Launched]:
        """The workers whose processes live."""
        return [launched(one) for one in records.read_all(self.run_dir) if one.role == "worker"]

    def ended(self) -> Sequence[Ended]:
        """Those are for the fleet's own autoscaler to bury."""
        return []


class DryRunJournal(Journal):
    """Tells decisions, each when it first would be carried out, and writes nothing."""

    def __init__(self, redis: Redis, say: Callable[[str], None]) -> None:
        super().__init__(redis)
        self._say = say
        self._last: dict[tuple[str, str, str], float] = {}

    def decided(self, now: float, decision: Start | Drain, worker: str) -> None:
        """A decision that would be carried out."""
        key = type(decision).__name__, decision.model, worker
        known = now - self._last.get(key, -AGAIN_AFTER_S) < AGAIN_AFTER_S
        self._last[key] = now
        if not known:
            super().decided(now, decision, worker)

    def _publish(self, key: str, record: PublishedNode | PublishedSizes, ttl_s: float) -> None:
        pass

    def _keep(self, key: str, health: Health) -> None:
        pass

    def _add(self, entry: JournalEntry) -> None:
        where = f"on {entry.device}" if entry.worker and entry.device else entry.device
        whom = " ".join(part for part in (entry.worker or entry.model, where) if part)
        at = time.strftime("%H:%M:%S", time.localtime(entry.at))
        self._say(f"{at} would {VERBS[entry.action]} {whom}: {entry.reason}")
        if entry.inputs:
            self._say(f"         {json.dumps(entry.inputs)}")


VERBS = {
    "start": "start",
    "drain": "drain",
    "hold": "hold back",
    "lost": "note the loss of",
    "quarantine": "quarantine",
    "release": "take back",
}
