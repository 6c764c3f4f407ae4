"""What is started, and what it sees of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from producer.contract.errors import ConfigError


def arguments(command: Sequence[str], **values: str) -> list[str]:
    """The command with each ``{name}`` replaced. Other braces stay: arguments may be JSON."""
    filled = []
    for argument in command:
        for name, value in values.items():
            argument = argument.replace(f"{{{name}}}", value)
        filled.append(argument)
    return filled


def device_kind(device: str) -> str:
    """``cpu`` or ``cuda``.

    Raises:
        ConfigError: for anything but ``cpu:N`` and ``cuda:N``.
    """
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or not index.isdigit():
        raise ConfigError(f"device = {device!r}: allowed are cpu:N and cuda:N")
    return kind


def device_env(device: str, env: Mapping[str, str]) -> dict[str, str]:
    """What keeps a server on the worker's device, given the worker's own environment.

    A launcher gives each worker one GPU (or MIG slice), and that is left as it is; among several, ``cuda:N`` counts
    those that the worker sees.

    Raises:
        ConfigError: when the worker does not see that GPU.
    """
    if device_kind(device) == "cpu":
        return {}
    index = int(device.removeprefix("cuda:"))
    seen = env.get("CUDA_VISIBLE_DEVICES")
    if seen is None:
        # NVML, and so the fleet, counts in the order of the PCI bus, CUDA by default the fastest first.
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(index)}
    gpus = [gpu.strip() for gpu in seen.split(",") if gpu.strip()]
    if len(gpus) == 1:
        return {}
    if index >= len(gpus):
        raise ConfigError(f"device = {device!r}: CUDA_VISIBLE_DEVICES = {seen!r} shows {len(gpus)} GPUs")
    return {"CUDA_VISIBLE_DEVICES": gpus[index]}
