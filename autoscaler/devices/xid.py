"""XID errors: the numbered errors that the NVIDIA driver reports, and which of them count as a fault of the GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.contract.fleet.fleet_schema import Quarantine

log = logging.getLogger(__name__)

Ask = Callable[..., Any]
"""Makes a call to NVML: the function, then its arguments."""

CATALOGUE = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"

APPLICATION = frozenset({13, 31, 43, 45, 68, 109})
"""Faults of the program that ran there; the GPU is well. These are ``ignoredXids`` of NVIDIA's own k8s-device-plugin
(``internal/rm/health.go``: "application errors: the GPU should still be healthy"); in the XID catalogue their immediate
action is to restart the application. 13 graphics engine exception, 31 memory page fault, 43 GPU stopped processing,
45 preemptive cleanup, 68 video processor exception, 109 context switch timeout."""

INFORMATIVE = frozenset({63, 92, 154})
"""Told for the record: 63 a memory row was remapped (the error itself is told as another one, and counted by ECC), 92
many corrected errors (both "ignore" in the catalogue), 154 what to do about an error that was told before."""

NAMES = {
    48: "double-bit memory error",
    61: "microcontroller breakpoint",
    62: "microcontroller halt",
    64: "memory row could not be remapped",
    74: "NVLink error",
    79: "fallen off the bus",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "firmware (GSP) does not answer",
    120: "firmware (GSP) error",
    140: "unrecovered memory error",
}
"""Short descriptions of the common ones."""


def of_the_gpu(xids: Collection[int], limits: Quarantine) -> list[int]:
    """The XID errors that count as a fault of the GPU: all but those listed as ignored."""
    if not xids:  # as of nearly every GPU in nearly every round
        return []
    ignored = (APPLICATION | INFORMATIVE | {*limits.ignored_xids}) - {*limits.counted_xids}
    return [xid for xid in xids if xid not in ignored]


def why_ignored(xid: int) -> str:
    """The reason why an XID error is ignored."""
    if xid in APPLICATION:
        return "it is the program's own fault"
    return "it is informative" if xid in INFORMATIVE else "quarantine.ignored_xids names it"


def names_of(xids: Iterable[int]) -> str:
    """The numbers with their descriptions, for display."""
    return ", ".join(f"XID {xid} ({NAMES[xid]})" if xid in NAMES else f"XID {xid}" for xid in sorted(set(xids)))


class XidEvents:
    """Reads the XID errors of GPUs through an NVML event set for each GPU, without waiting.

    Each GPU has a set of its own because a GPU that is lost makes its set unreadable. The driver reports only errors
    that occur after the registration.

    Args:
        nvml: the module ``pynvml``, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._sets: dict[str, Any] = {}  # by UUID; None for one that cannot be heard
        self._again: set[str] = set()
        self._unread: dict[str, str] = {}

    def listen(self, uuid: str, handle: Any, ask: Ask) -> None:
        """Register for this GPU's errors. A GPU that does not support it is not asked again."""
        if uuid in self._sets and uuid not in self._again:
            return
        self._again.discard(uuid)
        self._free(self._sets.pop(uuid, None))
        nvml, events = self._nvml, None
        try:
            events = ask(nvml.nvmlEventSetCreate)
            ask(nvml.nvmlDeviceRegisterEvents, handle, nvml.nvmlEventTypeXidCriticalError, events)
            self._sets[uuid] = events
        except nvml.NVMLError as error:
            self._free(events)
            self._sets[uuid] = None
            log.warning("%s reports no XID errors (NVML: %s): its health is judged without them", uuid, error)

    def forget(self, uuid: str) -> None:
        """Note that a GPU was lost, so that the next :meth:`listen` registers it again."""
        self._again.add(uuid)

    def read(self, ask: Ask) -> list[tuple[str, int]]:
        """The errors since the last call, as (UUID of the GPU, XID number)."""
        found = []
        for uuid, events in list(self._sets.items()):
            while events is not None:
                try:
                    found.append((uuid, int(ask(self._nvml.nvmlEventSetWait_v2, events, 0).eventData)))
                except self._nvml.NVMLError_Timeout:
                    self._unread.pop(uuid, None)
                    break
                except self._nvml.NVMLError as error:  # for example a lost GPU, which the next reading of it finds
                    if self._unread.get(uuid) != str(error):
                        log.warning("XID errors of %s cannot be read now (NVML: %s)", uuid, error)
                    self._unread[uuid] = str(error)
                    break
        return found

    def close(self) -> None:
        """Free all event sets. Errors not yet read are lost."""
        for events in self._sets.values():
            self._free(events)
        self._sets.clear()

    def _free(self, events: Any) -> None:
        if events is None:
            return
        try:
            self._nvml.nvmlEventSetFree(events)
        except self._nvml.NVMLError:
            log.debug("the event set was freed with its NVML session")
