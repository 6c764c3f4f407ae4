"""Quarantine: which devices are out of use for a fault, and when they are taken back. No clock, no I/O.

A fault puts a device out at once; only a failure to read it must be seen twice, because a driver that is busy may
fail once. It comes back when it has been well for ``STABLE_LOOKS`` looks in a row *and* its hold is over. The hold
doubles with each repetition, so that a device on the edge does not come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from .xid import names_of, of_the_gpu

if TYPE_CHECKING:
    from producer.contract.fleet_schema import Quarantine

    from .device import Device

HYSTERESIS_C = 10.0
"""So much below the limit a hot GPU is cool again. The gap keeps one near the limit from coming and going."""
STABLE_LOOKS = 10
FAILED_LOOKS = 2
"""Looks in a row at which a device that cannot be read counts as faulty."""
LONGEST_HOLD_S = 4 * 3600.0
FORGET_S = 3600.0
"""A device that was well for so long after its last fault begins anew."""


class Fault(StrEnum):
    """What is wrong with a device. Of two at once, the later in this list counts."""

    HOT = "hot"
    UNREADABLE = "unreadable"
    LOST = "lost"
    ECC = "ecc"
    XID = "xid"


WORSE = {fault: place for place, fault in enumerate(Fault)}
SEVERE = frozenset({Fault.ECC, Fault.XID})
"""What a GPU does not recover from by being left alone."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is remembered of a device. Times are Unix seconds.

    ``fault`` is None while it is in use. It is out since ``since``, and not taken back before ``until``.
    ``strikes`` counts its faults that were not forgotten, ``ecc_errors`` the memory errors that it was already
    out for. ``failed`` and ``well`` are looks in a row. ``device`` and ``host`` are what people called it and its
    machine when it was put out; it is known by its UUID.
    """

    fault: Fault | None = None
    reason: str = ""
    since: float = 0.0
    until: float = 0.0
    released_at: float = 0.0
    strikes: int = 0
    ecc_errors: int = 0
    failed: int = 0
    well: int = 0
    device: str = ""
    host: str = ""

    @property
    def lasting(self) -> Health:
        """Without what changes from look to look: what is to be written down."""
        return replace(self, failed=0, well=0)

    @property
    def pardoned(self) -> Health:
        """As of a device that somebody says is well, who has repaired it perhaps: only what is counted already stays
        so. If it is not well, the next look finds out."""
        return Health(ecc_errors=self.ecc_errors)

    def moved(self, step_s: float) -> Health:
        """The same after a step of the clock that its times were read from."""
        times = {name: getattr(self, name) for name in ("since", "until", "released_at")}
        return replace(self, **{name: at + step_s for name, at in times.items() if at})


WELL = Health()


def quarantine(
    now: float, limits: Quarantine, devices: Sequence[Device], known: Mapping[str, Health]
) -> tuple[list[Device], dict[str, Health]]:
    """Take out what is faulty and take back what has recovered.

    Args:
        known: what is remembered of devices, by :attr:`Device.key`. One that is not in it has no history.

    Returns:
        The devices, those that are out with their ``fault``; and what to remember.
    """
    seen, health = [], dict(known)
    unseen = blind(devices, known)
    for device in devices:
        before = known.get(device.key, WELL)
        if device.key in unseen:
            seen.append(_marked(now, device, before))
            continue
        after = examine(now, limits, device, before)
        if after is WELL or after == WELL:
            health.pop(device.key, None)
        else:
            health[device.key] = after
        seen.append(_marked(now, device, after))
    return seen, health


def blind(devices: Sequence[Device], known: Mapping[str, Health]) -> frozenset[str]:
    """The keys of the GPUs that say nothing about themselves because no GPU can be read; empty when some can.

    When all fail at once, as while the driver is loaded anew or when a container has lost its devices, it is the
    question that fails and not the GPUs: what runs there goes on, and nothing new is placed. A GPU that is alone and
    lost is lost; one that was out already says nothing about the others.
    """
    asked = [one for one in devices if one.kind == "cuda" and known.get(one.key, WELL).fault is None]
    if not asked or not all(one.fault for one in asked) or any(one.xids for one in asked):
        return frozenset()
    if len(asked) == 1 and asked[0].lost:
        return frozenset()
    return frozenset(one.key for one in asked)


def doubted(devices: Sequence[Device]) -> str:
    """What is wrong with the devices that may be well and are not used, as long as that is not known; else empty."""
    faults: dict[str, list[str]] = {}
    for device in devices:
        if device.suspect:
            faults.setdefault(device.fault, []).append(device.id)
    told = "; ".join(f"{', '.join(names)}: {fault}" for fault, names in faults.items())
    return f"{told}. Nothing new is placed there, and who runs there stays" if told else ""


def examine(now: float, limits: Quarantine, device: Device, before: Health) -> Health:
    """A device's health after one more look at it."""
    fault, reason = _symptom(limits, device, before)
    if before.fault is None:
        return _in_use(now, limits, device, before, fault, reason)
    if fault is None:
        return _recovering(now, device, before)
    told = WORSE[fault] >= WORSE[before.fault]
    return replace(
        before,
        fault=fault if told else before.fault,
        reason=reason if told else before.reason,
        # What recurs is not over: a new error counts from now.
        until=max(before.until, now + hold_s(limits, fault, before.strikes)) if fault in SEVERE else before.until,
        ecc_errors=max(before.ecc_errors, device.ecc_errors or 0),
        well=0,
    )


def hold_s(limits: Quarantine, fault: Fault, strikes: int) -> float:
    """Seconds that a device stays out at least, at its so many-th fault."""
    first = limits.severe_hold_s if fault in SEVERE else limits.hold_s
    return max(first, min(LONGEST_HOLD_S, first * 2.0 ** min(strikes - 1, 20)))


def _in_use(now: float, limits: Quarantine, device: Device, before: Health, fault: Fault | None, reason: str) -> Health:
    if fault is None:
        # A reset sets the count back: what comes after it is new.
        known = before.ecc_errors if device.ecc_errors is None else min(before.ecc_errors, device.ecc_errors)
        if before.strikes and now - before.released_at < FORGET_S:
            return replace(before, failed=0, ecc_errors=known)
        return Health(ecc_errors=known) if known else WELL
    if fault is Fault.UNREADABLE and before.failed + 1 < FAILED_LOOKS:
        return replace(before, failed=before.failed + 1)
    strikes = 1 if now - before.released_at >= FORGET_S else before.strikes + 1
    return Health(
        fault, reason, now, now + hold_s(limits, fault, strikes), before.released_at, strikes,
        max(before.ecc_errors, device.ecc_errors or 0), device=device.id,
    )  # fmt: skip


def _recovering(now: float, device: Device, before: Health) -> Health:
    # Counted since the driver was loaded or the GPU reset: that it went back tells that one of them happened.
    reset = device.ecc_errors is not None and device.ecc_errors < before.ecc_errors
    after = replace(before, well=before.well + 1, until=now if reset else before.until)
    if reset:
        after = replace(after, ecc_errors=device.ecc_errors or 0)
    if after.well < STABLE_LOOKS or now < after.until:
        return after
    return replace(after, fault=None, released_at=now, well=0)


def _symptom(limits: Quarantine, device: Device, before: Health) -> tuple[Fault | None, str]:
    """What is wrong with a device at this look, the worst of it."""
    if errors := of_the_gpu(device.xids, limits):
        return Fault.XID, names_of(errors)
    if device.ecc_errors is not None and device.ecc_errors > before.ecc_errors:
        new = device.ecc_errors - before.ecc_errors
        return Fault.ECC, f"{new} uncorrectable memory error{'s' if new > 1 else ''} (ECC)"
    if device.fault:
        return Fault.LOST if device.lost else Fault.UNREADABLE, device.fault
    was_hot = before.fault is Fault.HOT
    limit = limits.hot_c - HYSTERESIS_C if was_hot else limits.hot_c
    if device.temperature_c is None:
        return (Fault.HOT, "hot: temperature unknown") if was_hot else (None, "")
    return (Fault.HOT, f"hot: {device.temperature_c:.0f} C") if device.temperature_c >= limit else (None, "")


def _marked(now: float, device: Device, health: Health) -> Device:
    if health.fault is None:
        return replace(device, suspect=True) if device.fault else device
    ahead = f"out for {max(0.0, health.until - now):.0f} s more" if health.until > now else "hold over"
    return replace(device, fault=f"{health.reason}; {ahead}, well for {health.well} of {STABLE_LOOKS} looks")
