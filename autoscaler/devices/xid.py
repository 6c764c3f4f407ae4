"""XID errors: what the NVIDIA driver tells of a GPU, by number, and which of them are the GPU's fault."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

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
"""The commoner ones in words."""


def of_the_gpu(xids: Iterable[int]) -> list[int]:
    """Those that say that the GPU itself is at fault. One that nobody knows is."""
    return [xid for xid in xids if xid not in APPLICATION | INFORMATIVE]


def names_of(xids: Iterable[int]) -> str:
    """For people."""
    return ", ".join(f"XID {xid} ({NAMES[xid]})" if xid in NAMES else f"XID {xid}" for xid in sorted(set(xids)))


class XidEvents:
    """The XID errors of GPUs as they come, through an NVML event set. Never waits.

    The driver tells each listener what happens while it listens; what happened before is told by nobody.

    Args:
        nvml: the module ``pynvml``, initialised.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._set: Any = None
        self._listening: set[int] = set()

    def listen(self, index: int, handle: Any) -> None:
        """Hear of this GPU from now on. A driver or GPU that cannot tell is not asked again."""
        if index in self._listening:
            return
        self._listening.add(index)
        nvml = self._nvml
        try:
            if self._set is None:
                self._set = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
        except nvml.NVMLError as error:
            log.warning("cuda:%d tells no XID errors (NVML: %s): it is judged by its other signs alone", index, error)

    def forget(self, index: int) -> None:
        """A GPU was lost: listen anew when it is back."""
        self._listening.discard(index)

    def read(self) -> Mapping[int, Sequence[int]]:
        """The errors since the last call, by the GPU's index."""
        nvml, found = self._nvml, dict[int, list[int]]()
        while self._set is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._set, 0)
            except nvml.NVMLError_Timeout:
                break
            except nvml.NVMLError as error:  # as when a GPU is lost; it is found out by reading it
                log.warning("XID errors cannot be read now (NVML: %s)", error)
                break
            try:
                found.setdefault(nvml.nvmlDeviceGetIndex(event.device), []).append(int(event.eventData))
            except nvml.NVMLError as error:
                log.error("XID %d of a GPU that does not tell which it is (NVML: %s)", event.eventData, error)
        return found

    def close(self) -> None:
        """Hear no more. The NVML session may be over already."""
        if self._set is not None:
            try:
                self._nvml.nvmlEventSetFree(self._set)
            except self._nvml.NVMLError:
                log.debug("the event set went with its session")
        self._set = None
        self._listening.clear()
