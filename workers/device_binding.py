"""Binding a worker that was started by hand to its device: by UUID, as the autoscaler binds its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, MutableMapping

from producer.contract.fleet.slot_uuid import slot_uuid

UUIDS = ("GPU-", "MIG-")


def gpu_uuid(index: int) -> str:
    """The UUID of a GPU by its place on the PCI bus, as ``nvidia-smi`` counts; empty when the driver does not tell."""
    with contextlib.suppress(Exception):  # no package, no driver, no such GPU: the worker's engine says what is wrong
        import pynvml  # here, so that a worker can do without it

        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
    return ""


def bind(device: str, env: MutableMapping[str, str], uuid_of: Callable[[int], str] = gpu_uuid) -> str:
    """Let the process see its device alone, before CUDA is used. Returns its UUID, empty when it is not known.

    Args:
        device: ``cpu:N`` or ``cuda:N``; N counts what ``CUDA_VISIBLE_DEVICES`` names when that is several GPUs, and
            else the GPUs of the machine as ``stoker status`` and ``nvidia-smi`` do, which CUDA by itself does not.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return slot_uuid(device)
    if kind != "cuda" or not number.isdigit():
        return ""
    if env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID") != "PCI_BUS_ID":
        return ""  # set by the operator, on purpose
    seen = [entry.strip() for entry in env.get("CUDA_VISIBLE_DEVICES", number).split(",") if entry.strip()]
    gpu = seen[0] if len(seen) == 1 else seen[int(number)] if int(number) < len(seen) else ""
    uuid = gpu if gpu.startswith(UUIDS) else uuid_of(int(gpu)) if gpu.isdigit() else ""
    if uuid:
        env["CUDA_VISIBLE_DEVICES"] = uuid
    return uuid
