"""The command line and the environment of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from producer.contract.errors import ConfigError


def arguments(command: Sequence[str], **values: str) -> list[str]:
    """The command with each ``{name}`` replaced by its value. Other braces stay, since arguments may be JSON."""
    filled = []
    for argument in command:
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", value)
        filled.append(argument)
    return filled


def device_kind(device: str) -> str:
    """The kind of a device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: when the device is neither ``cpu:N`` nor ``cuda:N``.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or not index.isdigit():
        raise ConfigError(f"device = {device!r}: allowed are cpu:N and cuda:N")
    return kind


def device_env(device: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that restrict a server to the worker's device.

    A GPU or MIG slice that a launcher has selected in the worker's own environment ``env`` stays selected; among
    several, ``cuda:N`` counts those that are visible to the worker.

    Raises:
        ConfigError: when that GPU is not visible to the worker.
    """
    if device_kind(device) == "cpu":
        return {}
    index = int(device.removeprefix("cuda:"))
    seen = env.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        # NVML, and so the fleet, numbers GPUs in the order of the PCI bus; CUDA puts the fastest first by default.
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(index)}
    gpus = [gpu.strip() for gpu in seen.split(",") if gpu.strip()]
    if len(gpus) == 1:
        return {}
    if index >= len(gpus):
        raise ConfigError(f"device = {device!r}: CUDA_VISIBLE_DEVICES = {seen!r} shows {len(gpus)} GPUs")
    return {"CUDA_VISIBLE_DEVICES": gpus[index]}
