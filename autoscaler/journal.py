"""The journal: the autoscaler's decisions and view of the fleet, for operators, other programs and its successor."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from producer.contract import keys
from producer.contract.published import JournalEntry, PublishedNode, PublishedSizes

from .actions.decision import Decision, Drain, Hold, Start
from .devices import quarantine_record
from .devices.quarantine import WELL, Health, doubted
from .devices.xid import names_of, of_the_gpu, why_ignored
from .published_view import node_view

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.fleet_schema import Quarantine

    from .devices.device import Device
    from .devices.placement import Occupant
    from .launchers.protocol import Ended

log = logging.getLogger(__name__)

KEPT = 1000
"""Decisions that the stream in Redis holds, about."""


class JournalSink(Protocol):
    """Where the journal goes. The schema is in ``producer/contract/published.py``."""

    def append(self, entry: JournalEntry) -> None:
        """Add an entry to the decisions."""

    def publish(self, key: str, record: PublishedNode | PublishedSizes, ttl_s: float) -> None:
        """Replace what is published under ``key``; it expires after ``ttl_s`` seconds."""

    def keep(self, key: str, health: Health) -> None:
        """Store the health of the device ``key`` for the autoscaler's successor."""


class RedisSink:
    """Decisions go to a capped stream and the log, the view of devices and sizes to strings that expire, the health of
    devices to a hash.

    Methods raise ``redis.RedisError`` when Redis cannot serve.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def append(self, entry: JournalEntry) -> None:
        """Log the entry and add it to the stream; see :class:`JournalSink`."""
        named = (entry.model, entry.worker, entry.device, entry.reason)
        log.info("%s %s", entry.action, " ".join(part for part in named if part))
        fields: dict[Any, Any] = {**entry.fields()}  # typed for every protocol
        self._redis.xadd(keys.decisions(), fields, maxlen=KEPT, approximate=True)

    def publish(self, key: str, record: PublishedNode | PublishedSizes, ttl_s: float) -> None:
        """Set the string ``key``; see :class:`JournalSink`."""
        self._redis.set(key, record.model_dump_json(), px=int(ttl_s * 1000))

    def keep(self, key: str, health: Health) -> None:
        """Write the device's field of the hash; see :class:`JournalSink`."""
        quarantine_record.write(self._redis, key, health)


class Journal:
    """Makes journal entries from the results of a round, leaves out repetitions, and hands them to a sink.

    Args:
        redis: where the quarantine record of earlier autoscalers is read.
        host: the name of this machine; by default its host name.
        sink: where entries go; by default to ``redis``.
    """

    def __init__(self, redis: Redis, host: str | None = None, sink: JournalSink | None = None) -> None:
        self.redis = redis
        self.host = host or socket.gethostname()
        self.sink = sink or RedisSink(redis)
        self._holds: dict[str, str] = {}
        self._kept: dict[str, Health] = {}  # as the sink has it: what failed to be written is written next time
        self._ignored: set[tuple[str, int]] = set()
        self._doubted = ""
        self._node: PublishedNode | None = None

    def decided(self, now: float, decision: Start | Drain, worker: str) -> None:
        """Add a decision that was carried out on ``worker``."""
        action, reason = "start" if isinstance(decision, Start) else "drain", decision.reason
        self.sink.append(JournalEntry(now, decision.model, action, reason, worker, decision.device, decision.inputs))

    def lost(self, now: float, ended: Ended) -> None:
        """Add a worker that ended unasked."""
        reason = f"ended unasked after {ended.lived_s:.0f} s: {ended.cause}"
        inputs = {"lived_s": round(ended.lived_s, 1)}
        self.sink.append(JournalEntry(now, ended.model, "lost", reason, ended.name, inputs=inputs))

    def retried(self, now: float, model: str) -> None:
        """Add that an operator ended the back-off of ``model``."""
        self.sink.append(JournalEntry(now, model, "retry", "an operator ended its back-off ('stoker retry')"))

    def failed(self, now: float, decision: Start, cause: str) -> None:
        """Add a start that failed."""
        self.sink.append(
            JournalEntry(now, decision.model, "lost", cause, device=decision.device, inputs=decision.inputs)
        )

    def held(self, now: float, decisions: Iterable[Decision]) -> None:
        """Add the holds of a round that were not in the round before, or had another cause."""
        holds = {one.model: one for one in decisions if isinstance(one, Hold)}
        for model, hold in holds.items():
            if self._holds.get(model) != hold.cause:
                self.sink.append(JournalEntry(now, model, "hold", hold.reason, inputs=hold.inputs))
        self._holds = {model: hold.cause for model, hold in holds.items()}

    def health(self, now: float, devices: Iterable[Device], health: Mapping[str, Health]) -> None:
        """Add devices that were put into or released from quarantine, and keep the health of those that changed."""
        for device in devices:
            was, is_now = self._kept.get(device.key, WELL), health.get(device.key, WELL).lasting
            if is_now.device:
                is_now = replace(is_now, host=self.host)
            if was == is_now:
                continue
            if was.fault is not is_now.fault:
                self._add_quarantine(now, device, was, is_now)
            self.sink.keep(device.key, is_now)
            self._kept[device.key] = is_now

    def ignored(self, devices: Iterable[Device], limits: Quarantine) -> None:
        """Log XID errors that do not count, each once for each GPU."""
        for device in devices:
            for xid in {*device.xids} - {*of_the_gpu(device.xids, limits)}:
                if (device.key, xid) not in self._ignored:
                    log.info("%s of %s (%s) is ignored: %s", names_of([xid]), device.id, device.key, why_ignored(xid))
                self._ignored.add((device.key, xid))

    def _add_quarantine(self, now: float, device: Device, was: Health, is_now: Health) -> None:
        numbers = {"temperature_c": device.temperature_c, "ecc_errors": device.ecc_errors, "xids": device.xids}
        if is_now.fault is None:
            why = "well again" if is_now.released_at else "released by an operator"
            reason = f"{why}; was out for {now - was.since:.0f} s: {was.reason}"
            self.sink.append(JournalEntry(now, "", "release", reason, device=device.id, inputs=numbers))
        else:
            held_s = round(is_now.until - now, 1)
            reason = f"{is_now.reason}; out for {held_s:g} s at least"
            numbers |= {"strikes": is_now.strikes, "hold_s": held_s}
            self.sink.append(JournalEntry(now, "", "quarantine", reason, device=device.id, inputs=numbers))

    def recall(self) -> dict[str, Health]:
        """The recorded health of devices, of this machine and of others, by :attr:`Device.key`."""
        known = quarantine_record.read(self.redis)
        self._kept = dict(known)
        return known

    def pardons(self) -> dict[str, Health]:
        """The health of the devices that an operator released from quarantine (``stoker release``), by key."""
        out = {name for name, one in self._kept.items() if one.fault is not None}
        written = quarantine_record.read(self.redis) if out else {}
        return {name: one for name, one in written.items() if name in out and one.fault is None}

    def show(self, now: float, source: str, devices: Sequence[Device], held: Sequence[Occupant], ttl_s: float) -> None:
        """Publish the node and its devices; see :func:`~autoscaler.published_view.node_view`. Logs devices in doubt
        when they change."""
        if (doubts := doubted(devices)) != self._doubted:
            log.log(logging.WARNING if doubts else logging.INFO, "%s", doubts or "all devices can be read again")
        self._doubted = doubts
        self._node = node_view(self.host, now, source, devices, held)
        self.sink.publish(keys.devices(), self._node, ttl_s)

    def failing(self, now: float, why: str, ttl_s: float) -> None:
        """Publish that rounds fail, and why, with the last view of the node."""
        node = self._node or node_view(self.host, now, "", [], [])
        self.sink.publish(keys.devices(), node.model_copy(update={"at": now, "failing": why}), ttl_s)

    def wanted(self, sizes: PublishedSizes, ttl_s: float) -> None:
        """Publish the size of every model, and why."""
        self.sink.publish(keys.sizes(), sizes, ttl_s)
