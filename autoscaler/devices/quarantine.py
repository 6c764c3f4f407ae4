"""Quarantine: which devices are out of use because of a fault, and when they are released. No clock, no I/O.

A fault puts a device into quarantine at once; only a failure to read it must be seen twice, because a busy driver may
fail once. The device is released when it has been well for ``STABLE_LOOKS`` readings in a row *and* its hold is over.
The hold doubles with each repetition, so that a device with a recurring fault is not used and drained in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from .xid import names_of, of_the_gpu

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Quarantine

    from .device import Device

HYSTERESIS_C = 10.0
"""Degrees Celsius below the limit at which a hot GPU counts as cool again. Without the gap, a GPU near the limit would
enter and leave quarantine in turn."""
STABLE_LOOKS = 10
FAILED_LOOKS = 2
"""Readings that must fail in a row before a device counts as faulty."""
LONGEST_HOLD_S = 4 * 3600.0
FORGET_S = 3600.0
"""Seconds after its last quarantine at which a device's earlier faults are forgotten."""


class Fault(StrEnum):
    """The kind of a device's fault. Of several at once, the last in this list counts."""

    HOT = "hot"
    UNREADABLE = "unreadable"
    LOST = "lost"
    ECC = "ecc"
    XID = "xid"


WORSE = {fault: place for place, fault in enumerate(Fault)}
SEVERE = frozenset({Fault.ECC, Fault.XID})
"""Faults that a GPU does not recover from by idling."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a device. Times are Unix seconds.

    ``fault`` is None while the device is in use. In quarantine, it is so since ``since`` and not released before
    ``until``. ``strikes`` counts its faults that are not forgotten, ``ecc_errors`` the memory errors that already led
    to a quarantine. ``failed`` and ``well`` count readings in a row. ``device`` and ``host`` are the names of the
    device and its machine when it entered quarantine, for display; its identity is its UUID.
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
        """The part that is stored: without the counts that change with every reading."""
        return replace(self, failed=0, well=0)

    @property
    def pardoned(self) -> Health:
        """The health after an operator released the device: only its count of memory errors is kept. If the fault is
        still there, the next reading finds it."""
        return Health(ecc_errors=self.ecc_errors)

    def moved(self, step_s: float) -> Health:
        """The health after a step of the clock that its times were read from."""
        times = {name: getattr(self, name) for name in ("since", "until", "released_at")}
        return replace(self, **{name: at + step_s for name, at in times.items() if at})


WELL = Health()


def quarantine(
    now: float, limits: Quarantine, devices: Sequence[Device], known: Mapping[str, Health]
) -> tuple[list[Device], dict[str, Health]]:
    """Put faulty devices into quarantine and release those that have recovered.

    Args:
        known: the health of devices before, by :attr:`Device.key`. A device that is not in it has no history.

    Returns:
        The devices, those in quarantine with their ``fault``; and the health for the next call.
    """
    seen, health = [], dict(known)
    unseen = blind(devices, known)
    for device in devices:
        key = device.key
        after = before = known.get(key, WELL)
        if key not in unseen:
            after = examine(now, limits, device, before)
            if after is WELL or after == WELL:
                health.pop(key, None)
            else:
                health[key] = after
        seen.append(_marked(now, device, after))
    return seen, health


def blind(devices: Sequence[Device], known: Mapping[str, Health]) -> frozenset[str]:
    """The keys of the GPUs whose failure is the driver's, because no GPU can be read; empty when some can.

    When all fail at once, as while the driver is reloaded or when a container has lost its devices, the driver fails
    and not the GPUs: workers on them keep running, and none is placed. A single GPU that is lost counts as lost. GPUs
    already in quarantine are left out of account.
    """
    asked = []
    for one in devices:
        if one.kind == "cuda" and known.get(one.key, WELL).fault is None:
            if not one.fault or one.xids:
                return frozenset()
            asked.append(one)
    if len(asked) == 1 and asked[0].lost:
        return frozenset()
    return frozenset(one.key for one in asked)


def doubted(devices: Sequence[Device]) -> str:
    """The unconfirmed faults of devices, for display; empty when there are none."""
    faults: dict[str, list[str]] = {}
    for device in devices:
        if device.suspect:
            faults.setdefault(device.fault, []).append(device.id)
    told = "; ".join(f"{', '.join(names)}: {fault}" for fault, names in faults.items())
    return f"{told}. Nothing new is placed there; workers there keep running" if told else ""


def examine(now: float, limits: Quarantine, device: Device, before: Health) -> Health:
    """A device's health after a reading."""
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
        # A recurring error starts the hold again.
        until=max(before.until, now + hold_s(limits, fault, before.strikes)) if fault in SEVERE else before.until,
        ecc_errors=max(before.ecc_errors, device.ecc_errors or 0),
        well=0,
    )


def hold_s(limits: Quarantine, fault: Fault, strikes: int) -> float:
    """The least time in quarantine in seconds, by the number of faults in a row."""
    first = limits.severe_hold_s if fault in SEVERE else limits.hold_s
    return max(first, min(LONGEST_HOLD_S, first * 2.0 ** min(strikes - 1, 20)))


def _in_use(now: float, limits: Quarantine, device: Device, before: Health, fault: Fault | None, reason: str) -> Health:
    if fault is None:
        # A reset sets the count back: later errors are new.
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
    # The count starts when the driver is loaded or the GPU reset: a lower count shows that one of them happened.
    reset = device.ecc_errors is not None and device.ecc_errors < before.ecc_errors
    after = replace(before, well=before.well + 1, until=now if reset else before.until)
    if reset:
        after = replace(after, ecc_errors=device.ecc_errors or 0)
    if after.well < STABLE_LOOKS or now < after.until:
        return after
    return replace(after, fault=None, released_at=now, well=0)


def _symptom(limits: Quarantine, device: Device, before: Health) -> tuple[Fault | None, str]:
    """The worst fault that a reading of a device shows, with its reason; None and empty without a fault."""
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
