"""Reading one GPU: its memory, use, temperature, errors and processes, as NVML reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from .device import Device
from .gpu_processes import strangers
from .sampler import NvmlSampler

BYTES_PER_GB = 1e9
LOST_ERRORS = frozenset({6, 15, 16, 28})
"""NVML_ERROR_NOT_FOUND, _GPU_IS_LOST ("has fallen off the bus or has otherwise become inaccessible"), _RESET_REQUIRED
and _GPU_NOT_FOUND of ``nvml.h``: the GPU runs nothing any more. Any other error may pass."""
NOT_TOLD = frozenset({3, 4, 13})
"""NVML_ERROR_NOT_SUPPORTED, _NO_PERMISSION and _FUNCTION_NOT_FOUND: the driver or device does not report a quantity."""


@dataclass(slots=True)
class Gpu:
    """A GPU that was seen, with the name that it was given then."""

    id: str
    sampler: NvmlSampler[Device]
    handle: Any = None
    known: Device | None = None
    """Its last successful reading."""
    untold: Mapping[str, str] = field(default_factory=dict)
    """Quantities that could not be read last time, with the errors: each is logged when it begins."""


def read(nvml: Any, gpu: Gpu) -> Device:
    """Read all quantities of a GPU. Runs on its sampler's thread. One that cannot be read is unknown.

    Raises:
        pynvml.NVMLError: the GPU is lost.
    """
    handle, untold = gpu.handle, dict[str, str]()

    def ask(question: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return gpu.sampler.call(function, handle, *arguments)
        except nvml.NVMLError as error:
            if error.value in LOST_ERRORS:
                raise
            if error.value not in NOT_TOLD:
                untold[question] = f"NVML: {error}"
            return None

    total, used = _memory(nvml, gpu, untold)
    rates = ask("utilisation", nvml.nvmlDeviceGetUtilizationRates)
    counter = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    used_by = _used_by(ask("processes", nvml.nvmlDeviceGetComputeRunningProcesses) or [])
    known = gpu.known
    return Device(
        gpu.id,
        "cuda",
        ask("name", nvml.nvmlDeviceGetName) or (known.name if known else "GPU"),
        total,
        used_gb=used,
        used_by=used_by,
        others=strangers(used_by),
        temperature_c=ask("temperature", nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        utilisation=None if rates is None else rates.gpu / 100,
        ecc_errors=ask("ECC errors", nvml.nvmlDeviceGetTotalEccErrors, *counter),
        untold=untold,
    )


def _memory(nvml: Any, gpu: Gpu, untold: dict[str, str]) -> tuple[float | None, float | None]:
    """Total and used memory in GB; None is unknown.

    A GPU that does not support the query has no memory of its own and shares the machine's. For one that refuses
    it, as a slice does in a container, the machine's memory would be wrong.
    """
    try:
        info = gpu.sampler.call(nvml.nvmlDeviceGetMemoryInfo, gpu.handle)
    except nvml.NVMLError as error:
        if error.value in LOST_ERRORS:
            raise
        if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
            untold["memory"] = f"NVML: {error}"
            return (gpu.known.memory_gb if gpu.known else None), None
    else:
        return info.total / BYTES_PER_GB, info.used / BYTES_PER_GB
    shared = psutil.virtual_memory()
    return shared.total / BYTES_PER_GB, (shared.total - shared.available) / BYTES_PER_GB


def _used_by(processes: Iterable[Any]) -> dict[int, float]:
    return {one.pid: one.usedGpuMemory / BYTES_PER_GB for one in processes if one.usedGpuMemory is not None}
