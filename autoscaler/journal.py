"""The journal: what people and other programs can read about the autoscaler."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from producer import keys

from .decisions import Decision, Drain, Hold, Start

if TYPE_CHECKING:
    from redis import Redis

    from .devices import Device
    from .launchers.protocol import Ended
    from .roster import Worker

log = logging.getLogger(__name__)

KEPT = 1000


class Journal:
    """Writes decisions to a capped stream and the devices to a string that expires.

    A stream entry has the fields ``at`` (Unix seconds), ``action`` (start, drain, hold or lost), ``model``,
    ``worker``, ``device`` and ``reason``; those that do not apply are empty.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._holds: dict[str, str] = {}

    def decided(self, now: float, decision: Start | Drain, worker: str) -> None:
        """A decision that was carried out on ``worker``."""
        action = "start" if isinstance(decision, Start) else "drain"
        self._add(now, action, decision.model, worker, decision.device, decision.reason)

    def lost(self, now: float, ended: Ended) -> None:
        """A worker that ended unasked."""
        reason = f"ended unasked after {ended.lived_s:.0f} s: {ended.cause}"
        self._add(now, "lost", ended.model, ended.name, "", reason)

    def failed(self, now: float, decision: Start, cause: str) -> None:
        """A start that could not be carried out."""
        self._add(now, "lost", decision.model, "", decision.device, cause)

    def held(self, now: float, decisions: Iterable[Decision]) -> None:
        """The hindrances of a round. Each is written when it begins, not every second while it lasts."""
        holds = {one.model: one for one in decisions if isinstance(one, Hold)}
        for model, hold in holds.items():
            if self._holds.get(model) != hold.cause:
                self._add(now, "hold", model, "", "", hold.reason)
        self._holds = {model: hold.cause for model, hold in holds.items()}

    def show(self, source: str, devices: Sequence[Device], workers: Iterable[Worker], ttl_s: float) -> None:
        """Publish the devices: a JSON list, each with its measures, its state and who holds it."""
        holders: dict[str, list[str]] = {device.id: [] for device in devices}
        for worker in workers:
            holders.get(worker.device, []).append(worker.name)
        view = [{**asdict(device), "source": source, "workers": holders[device.id]} for device in devices]
        self.redis.set(keys.devices(), json.dumps(view), px=int(ttl_s * 1000))

    def _add(self, now: float, action: str, model: str, worker: str, device: str, reason: str) -> None:
        log.info("%s %s", action, " ".join(part for part in (model, worker, device, reason) if part))
        entry: dict[Any, Any] = {
            "at": f"{now:.3f}",
            "action": action,
            "model": model,
            "worker": worker,
            "device": device,
            "reason": reason,
        }
        self.redis.xadd(keys.decisions(), entry, maxlen=KEPT, approximate=True)
