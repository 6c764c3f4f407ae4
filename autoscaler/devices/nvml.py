"""The devices of this machine: the GPUs that NVML shows, or the CPU slots that ``fleet.toml`` declares."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producer.contract.errors import ConfigError

from .device import DeclaredProbe, Device, Probe
from .nvml_probe import GPU_UUIDS, NvmlProbe
from .sampler import NoAnswer, NotYet

if TYPE_CHECKING:
    from producer.contract.fleet.settings import Settings

log = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND = 9, 12
"""NVML error numbers."""
NO_GPUS = frozenset({"", "-1", "NoDevFiles", "none", "void"})
"""Values of ``CUDA_VISIBLE_DEVICES`` that hide all GPUs."""
INSTALL = "pip install 'stoker[autoscaler]'"
NEEDED = (
    "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID",
    "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceRegisterEvents",
    "nvmlEventSetCreate", "nvmlEventSetWait_v2", "nvmlEventSetFree", "nvmlEventTypeXidCriticalError",
    "NVML_TEMPERATURE_GPU", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", "NVML_VOLATILE_ECC", "NVML_ERROR_NOT_SUPPORTED",
    "NVMLError", "NVMLError_Timeout",
)  # fmt: skip
"""The names used from the module ``pynvml``; several packages contain a module of this name."""
FIRST_LOOK_S = 10.0
"""Seconds after which the autoscaler starts without the first reading."""


class LocalProbe:
    """The GPUs of this machine; the CPU slots of ``fleet.toml`` only while there is no NVIDIA driver at all.

    A driver that is loaded later is found. While NVML fails, a single device with that fault stands for all GPUs.
    """

    def __init__(self, gpus: NvmlProbe, declared: DeclaredProbe) -> None:
        self._gpus = gpus
        self._declared = declared
        self._held: Mapping[str, str] = {}
        self._said = ""
        self.source = gpus.source
        self.answered = False
        """Whether NVML answered or failed in the last reading, rather than being still in progress."""
        self.no_driver = ""
        """The error by which NVML last reported that there is no driver; empty if it never did."""

    def expect(self, held: Mapping[str, str]) -> None:
        """Set the devices that workers hold, as UUID and name."""
        self._held = held
        self._gpus.expect(held)

    def devices(self) -> list[Device]:
        """Every device now; see :class:`~autoscaler.devices.device.Probe`."""
        self.answered = True
        try:
            found = self._gpus.devices()
        except NoAnswer as error:
            self.answered = not isinstance(error, NotYet)
            return self._unasked(f"NVML: {error}")
        except self._gpus.errors as error:
            if no_driver(error.value):
                self.no_driver, slots = f"NVML: {error}", self._declared.devices()
                self._say(f"devices: {len(slots)} CPU slots declared in fleet.toml ({self.no_driver})")
                return self._with_held(self._declared.source, slots, "it is not in fleet.toml any more")
            return self._unasked(f"NVML: {error}")
        if not found:
            return self._unasked(f"NVML shows no GPU that may be used ({_visible()})")
        self._say(f"devices: {len(found)} GPUs through NVML; those declared in fleet.toml are not used")
        return self._with_held(self._gpus.source, found, "CPU slots are not used beside GPUs")

    def _unasked(self, why: str) -> list[Device]:
        fault = f"{why}; CPU slots are not used instead. Mend the driver, or say use_gpus = false in fleet.toml"
        self._say(f"GPUs cannot be asked: {fault}", logging.ERROR)
        self.source = self._gpus.source
        return [Device("cuda:?", "cuda", "GPU", None, used_gb=None, fault=fault)]

    def _with_held(self, source: str, devices: list[Device], why: str) -> list[Device]:
        """The devices, and faulty ones for CPU slots that workers hold but that are no longer in use, so that these
        workers are drained."""
        self.source = source
        known = {device.uuid for device in devices}
        left = {uuid: name for uuid, name in self._held.items() if uuid not in known}
        return devices + [
            Device(name, "cpu", name, None, used_gb=None, fault=why, uuid=uuid)
            for uuid, name in left.items()
            if not uuid.startswith(GPU_UUIDS)
        ]

    def _say(self, what: str, level: int = logging.INFO) -> None:
        if what != self._said:
            log.log(level, "%s", what)
        self._said = what


def choose_probe(settings: Settings) -> Probe:
    """The GPUs of this machine, or the devices that ``fleet.toml`` declares where there is no NVIDIA driver.

    Raises:
        ConfigError: there is neither, or the NVML package cannot be used.
    """
    declared = DeclaredProbe(settings.devices)
    if not settings.use_gpus:
        return _slots(declared, "use_gpus is false")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in NO_GPUS:
        return _slots(declared, f"NVML shows no GPU ({_visible()})")
    try:
        nvml = load()
    except ConfigError as error:
        if driver_present():
            raise
        return _slots(declared, str(error))
    probe = LocalProbe(NvmlProbe(nvml, os.environ.get("CUDA_VISIBLE_DEVICES")), declared)
    return probe if _first_look(probe) else _slots(declared, probe.no_driver)


def load() -> Any:
    """The module ``pynvml`` of nvidia-ml-py.

    Raises:
        ConfigError: it is not installed, or belongs to another package.
    """
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        raise ConfigError(f"nvidia-ml-py is not installed, by which GPUs are asked ({INSTALL})") from None
    missing = [name for name in NEEDED if not hasattr(nvml, name)]
    if missing:
        owners = ", ".join(metadata.packages_distributions().get("pynvml", [])) or "no package"
        raise ConfigError(
            f"the module pynvml at {nvml.__file__} (of {owners}) lacks {missing[0]} and {len(missing) - 1} more names "
            f"that are needed to ask GPUs: it is not that of nvidia-ml-py 13 or later. Uninstall it, then {INSTALL}"
        )
    return nvml


def driver_present(root: Path = Path("/")) -> bool:
    """Whether an NVIDIA driver's device file or library is found."""
    if (root / "dev/nvidiactl").exists():
        return True
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def no_driver(error: int, root: Path = Path("/")) -> bool:
    """Whether an NVML error means that there is no NVIDIA driver, and no GPU that lacks one.

    The library alone is no driver; without a GPU on the bus none will be loaded.
    """
    if error not in (LIBRARY_NOT_FOUND, DRIVER_NOT_LOADED) or (root / "dev/nvidiactl").exists():
        return False
    return error == LIBRARY_NOT_FOUND or not _gpu_on_bus(root)


def _gpu_on_bus(root: Path) -> bool:
    """Whether the PCI bus has a display controller (class 03) of NVIDIA (vendor 10de), with or without a driver."""
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _slots(declared: DeclaredProbe, why: str) -> Probe:
    found = declared.devices()
    if not found:
        raise ConfigError(
            f"no device to run on: {why}, and devices is empty. Add a [[devices]] table to fleet.toml "
            'for each CPU slot, such as name = "cpu:0" and memory_gb = 4, or install the NVIDIA driver'
        )
    log.info("devices: %d CPU slots declared in fleet.toml (%s)", len(found), why)
    return declared


def _first_look(probe: LocalProbe) -> list[Device]:
    deadline = time.monotonic() + FIRST_LOOK_S
    while True:
        found = probe.devices()
        if probe.answered or time.monotonic() > deadline:
            return found


def _visible() -> str:
    return f"CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES')!r}"
