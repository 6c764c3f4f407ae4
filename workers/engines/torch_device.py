"""Translation of Stoker's device names to torch's, with the number of threads that torch uses on a CPU slot."""

from __future__ import annotations

import os

import torch

from producer.contract.errors import ConfigError


def torch_device(device: str) -> torch.device:
    """The torch device for ``cpu:N`` (a CPU slot of this machine) or ``cuda:N`` (numbered as this process sees GPUs).

    Raises:
        ConfigError: for any other name, or a GPU that this process does not see.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # workers share the cores: with more threads than cores, 10 to 50 times slower
        return torch.device("cpu")
    if kind != "cuda" or not index.isdigit():
        raise ConfigError(f"device = {device!r}: allowed are cpu:N and cuda:N")
    # A launcher shows each worker one GPU: the fleet's cuda:3 is then the only one in this process, cuda:0.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if seen and "," not in seen:
        index = "0"
    if int(index) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = {device!r}: this process sees {torch.cuda.device_count()} GPUs; check "
            "CUDA_VISIBLE_DEVICES, the driver, and that torch is a CUDA build"
        )
    return torch.device("cuda", int(index))
