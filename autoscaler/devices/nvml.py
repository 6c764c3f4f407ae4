"""NVIDIA GPUs through NVML (``nvidia-ml-py``, whose module is ``pynvml``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from producer.contract.errors import ConfigError

from .device import DeclaredProbe, Device, Probe
from .xid import XidEvents

if TYPE_CHECKING:
    from producer.contract.settings import Settings

log = logging.getLogger(__name__)

BYTES_PER_GB = 1e9
LOST_ERRORS = frozenset({6, 15, 16, 28})
"""NVML_ERROR_NOT_FOUND, _GPU_IS_LOST ("has fallen off the bus or has otherwise become inaccessible"), _RESET_REQUIRED
and _GPU_NOT_FOUND of ``nvml.h``: nothing runs there any more. Any other error may pass."""
ANEW_AFTER_LOOKS = 30
"""Looks with an unreadable GPU after which NVML is opened anew."""


class NvmlProbe:
    """Every GPU that NVML and ``CUDA_VISIBLE_DEVICES`` let us see, as ``cuda:N`` in the order of the PCI bus.

    Raises:
        ImportError: when nvidia-ml-py is not installed.
        pynvml.NVMLError: when there is no driver.
    """

    source = "NVML"

    def __init__(self, visible: str | None = None) -> None:
        import pynvml  # here, so that a machine without it can still run on declared devices

        self._nvml = pynvml
        # Asked for less by the driver or the device: the value is unknown, the device is fine.
        self._unsupported = (
            pynvml.NVMLError_NotSupported,
            pynvml.NVMLError_FunctionNotFound,
            pynvml.NVMLError_NoPermission,
        )
        pynvml.nvmlInit()
        self._last: dict[int, Device] = {}
        self._unreadable_looks = 0
        self._events = XidEvents(pynvml)
        self._indices = self._visible(pynvml.nvmlDeviceGetCount(), visible)

    def devices(self) -> list[Device]:
        """Every GPU now; a lost or unreadable one with its fault, and the name and memory it had."""
        if self._unreadable_looks >= ANEW_AFTER_LOOKS:
            self._begin_anew()
        xids = self._events.read()
        found = [self._device(index, tuple(xids.get(index, ()))) for index in self._indices]
        self._unreadable_looks = self._unreadable_looks + 1 if any(device.fault for device in found) else 0
        return found

    def _device(self, index: int, xids: tuple[int, ...]) -> Device:
        try:
            device = self._read(index)
        except self._nvml.NVMLError as error:
            return self._gone(index, xids, f"NVML: {error}", lost=error.value in LOST_ERRORS)
        known = self._last.get(index, device)
        if known.uuid and device.uuid and known.uuid != device.uuid:
            why = f"{known.uuid} is gone, {device.uuid} in its place: restart the autoscaler"
            return self._gone(index, xids, why, lost=True)
        self._last[index] = device
        return replace(device, xids=xids)

    def _gone(self, index: int, xids: tuple[int, ...], fault: str, *, lost: bool) -> Device:
        self._events.forget(index)
        known = self._last.get(index, Device(f"cuda:{index}", "cuda", "GPU", 0.0))
        return Device(
            known.id, known.kind, known.name, known.memory_gb, fault=fault, uuid=known.uuid, xids=xids, lost=lost
        )

    def _read(self, index: int) -> Device:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        total, used = _memory(self._ask(nvml.nvmlDeviceGetMemoryInfo, handle))
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        device = Device(
            f"cuda:{index}",
            "cuda",
            self._ask(nvml.nvmlDeviceGetName, handle) or "GPU",
            total,
            used_gb=used,
            used_by=_used_by(self._ask(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            utilisation=None if rates is None else rates.gpu / 100,
            uuid=self._ask(nvml.nvmlDeviceGetUUID, handle) or "",
            ecc_errors=self._ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
        )
        self._events.listen(index, handle)
        return device

    def _begin_anew(self) -> None:
        """Open another NVML session: the present one may never see a GPU again that was lost and is back, nor any
        after the driver was loaded anew."""
        self._unreadable_looks = 0
        self._events.close()
        try:
            self._nvml.nvmlShutdown()
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:  # every GPU is then unreadable, and says so
            log.warning("NVML cannot be opened anew: %s", error)

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._unsupported:
            return None

    def _visible(self, count: int, visible: str | None) -> list[int]:
        """The indices named in ``CUDA_VISIBLE_DEVICES``: what a cluster gave us, not all that it has."""
        if visible is None:
            return list(range(count))
        wanted = [entry.strip() for entry in visible.split(",") if entry.strip()]
        return [
            index
            for index in range(count)
            if str(index) in wanted
            or any(entry.startswith("GPU-") and self._uuid(index).startswith(entry) for entry in wanted)
        ]

    def _uuid(self, index: int) -> str:
        try:
            return str(self._nvml.nvmlDeviceGetUUID(self._nvml.nvmlDeviceGetHandleByIndex(index)))
        except self._nvml.NVMLError:
            return ""


def choose_probe(settings: Settings) -> Probe:
    """The GPUs when NVML shows any, else the devices that ``fleet.toml`` declares.

    Raises:
        ConfigError: when there is neither.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        probe = NvmlProbe(visible)
        gpus = len(probe.devices())
        why_not = "" if gpus else f"NVML shows no GPU (CUDA_VISIBLE_DEVICES is {visible!r})"
    except ImportError:
        why_not = "nvidia-ml-py is not installed (pip install 'stoker[autoscaler]')"
    except Exception as error:  # any NVMLError; its class is only known where pynvml is installed
        why_not = f"NVML: {error}"
    if not why_not:
        log.info("devices: %d GPUs through NVML; those declared in fleet.toml are not used", gpus)
        return probe
    if not settings.devices:
        raise ConfigError(
            f"no device to run on: {why_not}, and devices is empty. Add a [[devices]] table to fleet.toml "
            'for each CPU slot, such as name = "cpu:0" and memory_gb = 4, or install the NVIDIA driver'
        )
    log.info("devices: %d declared in fleet.toml (%s)", len(settings.devices), why_not)
    return DeclaredProbe(settings.devices)


def _memory(info: Any) -> tuple[float, float]:
    """Total and used memory in GB. A GPU without memory of its own shares the machine's."""
    if info is not None:
        return info.total / BYTES_PER_GB, info.used / BYTES_PER_GB
    import psutil

    shared = psutil.virtual_memory()
    return shared.total / BYTES_PER_GB, (shared.total - shared.available) / BYTES_PER_GB


def _used_by(processes: Iterable[Any]) -> dict[int, float]:
    return {one.pid: one.usedGpuMemory / BYTES_PER_GB for one in processes if one.usedGpuMemory is not None}
