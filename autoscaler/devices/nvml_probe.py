"""NVIDIA GPUs through NVML (``nvidia-ml-py``, whose module is ``pynvml``)."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .device import Device
from .gpu_reading import LOST_ERRORS, Gpu, read
from .sampler import WAIT_S, NoAnswer, NvmlSampler
from .xid import XidEvents

log = logging.getLogger(__name__)

GPU_UUIDS = ("GPU-", "MIG-")
"""Prefixes of the UUIDs of GPUs and of their slices (MIG)."""
ANEW_AFTER_LOOKS = 30
"""Readings in a row with an unreadable GPU after which a new NVML session is opened."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in NVML's enumeration: its GPU, or the error. ``uuid`` is empty when NVML does not report it."""

    index: int
    uuid: str = ""
    handle: Any = None
    error: Exception | None = None


class NvmlProbe:
    """The GPUs that NVML and ``CUDA_VISIBLE_DEVICES`` show, identified by UUID.

    A GPU is named ``cuda:N`` by its place on the PCI bus when it is first seen, and keeps that name: neither a change
    of the order nor the loss of a GPU renames another.

    Args:
        nvml: the module ``pynvml``.
        visible: the value of ``CUDA_VISIBLE_DEVICES``; None when it is not set.
    """

    source = "NVML"

    def __init__(self, nvml: Any, visible: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml = nvml
        self._clock = clock
        self._visible = visible
        self._ours: frozenset[str] | None = None  # UUIDs that the indices in ``visible`` stood for at first
        self._open = False
        self._session: NvmlSampler[list[Slot]] = NvmlSampler("NVML", self._enumerate, clock)
        self._events = XidEvents(nvml)
        self._xids: deque[tuple[str, int]] = deque()
        self._gpus: dict[str, Gpu] = {}
        self._at: dict[int, str] = {}  # the UUID that each index was last seen with
        self._unreadable_looks = 0
        self._held: Mapping[str, str] = {}
        self.errors: type[Any] = nvml.NVMLError
        """The exception type that :meth:`devices` raises, with NVML's number as ``value``."""

    def expect(self, held: Mapping[str, str]) -> None:
        """Set the GPUs that workers hold, as UUID and name. They keep that name; one that NVML does not show is
        lost."""
        self._held = held

    def devices(self) -> list[Device]:
        """Every GPU now. One that is lost, unreadable or does not answer has its fault and its last known type.

        Raises:
            NoAnswer, pynvml.NVMLError: NVML itself fails, and no GPU was seen before.
        """
        until = self._clock() + WAIT_S
        self._session.begin()
        try:
            slots, fresh = self._session.read(until)
        except (NoAnswer, self._nvml.NVMLError) as error:
            if not self._gpus:
                raise
            self._unreadable_looks += 1
            return self._ordered(self._failed(gpu, error) for gpu in self._gpus.values())
        if fresh:
            self._meet(slots)
        found = self._ordered(self._look(slots, self._clock() + WAIT_S))
        unreadable = any(device.fault for device in found)
        self._unreadable_looks = self._unreadable_looks + 1 if unreadable else 0
        return found

    # -- the session ------------------------------------------------------------------------------

    def _enumerate(self) -> list[Slot]:
        """NVML's enumeration. Runs on the session's thread; collects XID errors for :meth:`devices`."""
        ask = self._session.call
        if self._open:
            self._hear()
        if self._unreadable_looks >= ANEW_AFTER_LOOKS and not any(gpu.sampler.busy for gpu in self._gpus.values()):
            self._close()
        if not self._open:
            ask(self._nvml.nvmlInit)
            self._open = True
        try:
            slots = [self._slot(index) for index in range(ask(self._nvml.nvmlDeviceGetCount))]
        except self._nvml.NVMLError as error:
            if error.value == 1:  # NVML_ERROR_UNINITIALIZED: the driver was loaded anew
                self._open = False
            raise
        for slot in slots:
            if slot.uuid and slot.handle is not None:
                self._events.listen(slot.uuid, slot.handle, ask)
        return slots

    def _hear(self) -> None:
        self._xids.extend(self._events.read(self._session.call))

    def _close(self) -> None:
        """End the NVML session, so that the next reading opens a new one: a session may never find a GPU again that was
        lost and returned, nor any GPU after the driver was reloaded."""
        self._unreadable_looks = 0
        self._hear()  # closing an event set discards the errors not yet read
        self._events.close()
        self._open = False
        try:
            self._session.call(self._nvml.nvmlShutdown)
        except self._nvml.NVMLError as error:
            log.warning("NVML cannot be closed (%s)", error)

    def _slot(self, index: int) -> Slot:
        ask, nvml = self._session.call, self._nvml
        try:
            handle = ask(nvml.nvmlDeviceGetHandleByIndex, index)
        except nvml.NVMLError as error:
            return Slot(index, error=error)
        try:
            return Slot(index, str(ask(nvml.nvmlDeviceGetUUID, handle)), handle)
        except nvml.NVMLError as error:
            lost = error if error.value in LOST_ERRORS else None
            return Slot(index, "", None if lost else handle, lost)

    # -- identities -------------------------------------------------------------------------------

    def _meet(self, slots: Iterable[Slot]) -> None:
        """Name each GPU that is seen, or that a worker holds and NVML does not show, for the first time."""
        present = {slot.uuid: slot for slot in slots if slot.uuid}
        if self._ours is None:
            self._ours = self._named(present.values())
        for uuid, slot in present.items():
            self._at[slot.index] = uuid
            if self._is_ours(uuid):
                if uuid not in self._gpus:
                    self._add(uuid, self._held.get(uuid, f"cuda:{slot.index}"), present)
                self._gpus[uuid].handle = slot.handle
        if len(present) == len(list(slots)):  # else a slot without UUID may be the missing GPU
            for uuid, name in self._held.items():
                if uuid.startswith(GPU_UUIDS) and uuid not in present and uuid not in self._gpus:
                    self._add(uuid, name, present)

    def _add(self, uuid: str, name: str, present: Mapping[str, Slot]) -> None:
        holders = {gpu.id: holder for holder, gpu in self._gpus.items()}
        if (holder := holders.get(name)) in present:
            if uuid in present:
                free = len(present)
                while (name := f"cuda:{free}") in holders:
                    free += 1
            else:
                name = uuid
        elif holder is not None:
            self._gpus[holder].id = holder  # gone: another is in its place, and is called by that
        gpu = self._gpus[uuid] = Gpu(name, NvmlSampler(name, lambda: read(self._nvml, gpu), self._clock))

    def _is_ours(self, uuid: str) -> bool:
        return self._visible is None or uuid in (self._ours or ()) or self._names(uuid)

    def _named(self, slots: Iterable[Slot]) -> frozenset[str]:
        """The UUIDs behind the indices of ``CUDA_VISIBLE_DEVICES`` in the first enumeration of this process."""
        wanted = {entry.strip() for entry in (self._visible or "").split(",")}
        return frozenset(slot.uuid for slot in slots if str(slot.index) in wanted)

    def _names(self, uuid: str) -> bool:
        entries = [entry.strip() for entry in (self._visible or "").split(",")]
        return any(entry.startswith(GPU_UUIDS) and uuid.startswith(entry) for entry in entries)

    # -- readings ---------------------------------------------------------------------------------

    def _look(self, slots: Iterable[Slot], until: float) -> list[Device]:
        slots = list(slots)
        present = {slot.uuid for slot in slots}
        # A slot without UUID counts as the GPU that had its index before, unless that GPU has another index now.
        mute = [slot for slot in slots if not slot.uuid]
        before = {slot.index: self._at.get(slot.index, "") for slot in mute}
        guessed = {uuid: slot for slot in mute if (uuid := before[slot.index]) and uuid not in present}
        readable = [self._gpus[uuid] for uuid in present if uuid in self._gpus]
        for uuid, slot in guessed.items():
            if uuid in self._gpus and slot.handle is not None:
                self._gpus[uuid].handle = slot.handle
                readable.append(self._gpus[uuid])
        for gpu in readable:
            gpu.sampler.begin()
        xids = self._take_xids()
        found = []
        for uuid, gpu in self._gpus.items():
            if gpu in readable:
                device = self._sample(gpu, until)
            elif uuid in guessed:
                device = self._failed(gpu, guessed[uuid].error)
            else:
                device = self._gone(gpu, "it has left the GPUs that NVML shows", lost=True)
            if device.lost:
                self._events.forget(uuid)
            found.append(replace(device, uuid=uuid, xids=tuple(xids.get(uuid, ()))))
        if self._visible is None:
            named = {gpu.id for gpu in self._gpus.values()}
            strangers = (self._unknown(slot) for slot in mute if before[slot.index] not in guessed)
            found += [device for device in strangers if device.id not in named]
        return found

    def _take_xids(self) -> Mapping[str, list[int]]:
        found = defaultdict[str, list[int]](list)
        while self._xids:
            uuid, xid = self._xids.popleft()
            found[uuid].append(xid)
        return found

    def _sample(self, gpu: Gpu, until: float) -> Device:
        try:
            device, fresh = gpu.sampler.read(until)
        except (NoAnswer, self._nvml.NVMLError) as error:
            return self._failed(gpu, error)
        gpu.known = device
        if fresh:
            self._tell(gpu, device.untold)
        return device

    def _tell(self, gpu: Gpu, untold: Mapping[str, str]) -> None:
        for question, error in untold.items():
            if gpu.untold.get(question) != error:
                log.warning(
                    "%s does not tell its %s (%s): it is unknown, and the rest is as ever", gpu.id, question, error
                )
        gpu.untold = untold

    def _failed(self, gpu: Gpu, error: Exception | None) -> Device:
        return self._gone(gpu, f"NVML: {error}", lost=getattr(error, "value", None) in LOST_ERRORS)

    @staticmethod
    def _gone(gpu: Gpu, fault: str, *, lost: bool) -> Device:
        known = gpu.known or Device(gpu.id, "cuda", "GPU", None, used_gb=None)
        return Device(
            gpu.id, "cuda", known.name, known.memory_gb, used_gb=None, fault=fault, uuid=known.uuid, lost=lost
        )

    @staticmethod
    def _unknown(slot: Slot) -> Device:
        """A GPU that never reported its UUID: it is shown and cannot be used."""
        fault = f"NVML: {slot.error}" if slot.error else "NVML does not tell its UUID"
        return Device(f"cuda:{slot.index}", "cuda", "GPU", None, used_gb=None, fault=fault)

    @staticmethod
    def _ordered(devices: Iterable[Device]) -> list[Device]:
        return sorted(devices, key=lambda device: (*_place(device.id), device.id))


def _place(name: str) -> tuple[int, int]:
    _, _, number = name.partition(":")
    return (0, int(number)) if number.isdigit() else (1, 0)
