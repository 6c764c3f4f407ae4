"""The journal: what people, other programs and the autoscaler's successor can read about it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.published import JournalEntry, PublishedNode, PublishedSizes

from .actions.decision import Decision, Drain, Hold, Start
from .devices import quarantine_record
from .devices.quarantine import WELL, Health, doubted
from .devices.xid import names_of, of_the_gpu, why_ignored
from .published_view import node_view

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet_schema import Quarantine

    from .devices.device import Device
    from .devices.placement import Occupant
    from .launchers.protocol import Ended

log = logging.getLogger(__name__)

KEPT = 1000


class Journal:
    """Writes decisions to a capped stream, its view of devices and sizes to strings that expire, and what it
    remembers of faulty devices to a hash, so that its successor does not use them at once.

    What it writes has its schema in ``producer/contract/published.py``.
    """

    def __init__(self, redis: Redis, host: str | None = None) -> None:
        self.redis = redis
        self.host = host or socket.gethostname()
        self._holds: dict[str, str] = {}
        self._kept: dict[str, Health] = {}  # as it is written down: what could not be is written later
        self._ignored: set[tuple[str, int]] = set()
        self._doubted = ""
        self._node: PublishedNode | None = None

    def decided(self, now: float, decision: Start | Drain, worker: str) -> None:
        """A decision that was carried out on ``worker``."""
        action = "start" if isinstance(decision, Start) else "drain"
        self._add(JournalEntry(now, decision.model, action, decision.reason, worker, decision.device, decision.inputs))

    def lost(self, now: float, ended: Ended) -> None:
        """A worker that ended unasked."""
        reason = f"ended unasked after {ended.lived_s:.0f} s: {ended.cause}"
        inputs = {"lived_s": round(ended.lived_s, 1)}
        self._add(JournalEntry(now, ended.model, "lost", reason, ended.name, inputs=inputs))

    def failed(self, now: float, decision: Start, cause: str) -> None:
        """A start that could not be carried out."""
        self._add(JournalEntry(now, decision.model, "lost", cause, device=decision.device, inputs=decision.inputs))

    def held(self, now: float, decisions: Iterable[Decision]) -> None:
        """The hindrances of a round. Each is written when it begins, not every second while it lasts."""
        holds = {one.model: one for one in decisions if isinstance(one, Hold)}
        for model, hold in holds.items():
            if self._holds.get(model) != hold.cause:
                self._add(JournalEntry(now, model, "hold", hold.reason, inputs=hold.inputs))
        self._holds = {model: hold.cause for model, hold in holds.items()}

    def health(self, now: float, devices: Iterable[Device], health: Mapping[str, Health]) -> None:
        """What became of the devices' health since it was last written, and what is to be remembered of it."""
        for device in devices:
            was, is_now = self._kept.get(device.key, WELL), health.get(device.key, WELL).lasting
            if is_now.device:
                is_now = replace(is_now, host=self.host)
            if was == is_now:
                continue
            if was.fault is not is_now.fault:
                self._told(now, device, was, is_now)
            self._keep(device.key, is_now)
            self._kept[device.key] = is_now

    def ignored(self, devices: Iterable[Device], limits: Quarantine) -> None:
        """XID errors that do not count: each is logged once of each GPU."""
        for device in devices:
            for xid in {*device.xids} - {*of_the_gpu(device.xids, limits)}:
                if (device.key, xid) not in self._ignored:
                    log.info("%s of %s (%s) is ignored: %s", names_of([xid]), device.id, device.key, why_ignored(xid))
                self._ignored.add((device.key, xid))

    def _told(self, now: float, device: Device, was: Health, is_now: Health) -> None:
        numbers = {"temperature_c": device.temperature_c, "ecc_errors": device.ecc_errors, "xids": device.xids}
        if is_now.fault is None:
            why = "well again" if is_now.released_at else "taken back, as somebody asked for"
            reason = f"{why}; was out for {now - was.since:.0f} s: {was.reason}"
            self._add(JournalEntry(now, "", "release", reason, device=device.id, inputs=numbers))
        else:
            held_s = round(is_now.until - now, 1)
            reason = f"{is_now.reason}; out for {held_s:g} s at least"
            numbers |= {"strikes": is_now.strikes, "hold_s": held_s}
            self._add(JournalEntry(now, "", "quarantine", reason, device=device.id, inputs=numbers))

    def recall(self) -> dict[str, Health]:
        """What is remembered of devices, of this machine and of others, by UUID."""
        known = quarantine_record.read(self.redis)
        self._kept = dict(known)
        return known

    def pardons(self) -> dict[str, Health]:
        """The devices in quarantine that somebody has released (``stoker release``), as they are to be remembered."""
        out = {name for name, one in self._kept.items() if one.fault is not None}
        written = quarantine_record.read(self.redis) if out else {}
        return {name: one for name, one in written.items() if name in out and one.fault is None}

    def show(self, now: float, source: str, devices: Sequence[Device], held: Sequence[Occupant], ttl_s: float) -> None:
        """Publish the node and its devices; see :func:`~autoscaler.published_view.node_view`. Logs doubts once."""
        if (doubts := doubted(devices)) != self._doubted:
            log.log(logging.WARNING if doubts else logging.INFO, "%s", doubts or "all devices can be read again")
        self._doubted = doubts
        self._node = node_view(self.host, now, source, devices, held)
        self._publish(keys.devices(), self._node, ttl_s)

    def failing(self, now: float, why: str, ttl_s: float) -> None:
        """Publish that rounds fail, with the last view of the node that there was."""
        node = self._node or node_view(self.host, now, "", [], [])
        self._publish(keys.devices(), node.model_copy(update={"at": now, "failing": why}), ttl_s)

    def wanted(self, sizes: PublishedSizes, ttl_s: float) -> None:
        """Publish what every model should have, and why."""
        self._publish(keys.sizes(), sizes, ttl_s)

    def _publish(self, key: str, record: PublishedNode | PublishedSizes, ttl_s: float) -> None:
        self.redis.set(key, record.model_dump_json(), px=int(ttl_s * 1000))

    def _keep(self, key: str, health: Health) -> None:
        quarantine_record.write(self.redis, key, health)

    def _add(self, entry: JournalEntry) -> None:
        named = (entry.model, entry.worker, entry.device, entry.reason)
        log.info("%s %s", entry.action, " ".join(part for part in named if part))
        fields: dict[Any, Any] = {**entry.fields()}  # typed for every protocol
        self.redis.xadd(keys.decisions(), fields, maxlen=KEPT, approximate=True)
