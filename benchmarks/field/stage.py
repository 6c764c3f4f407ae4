"""Processes of a fleet on an arena: a worker of any model, a gateway, an autoscaler on made-up GPUs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from redis import Redis

from benchmarks.chaos.arena import Arena, wait_for
from benchmarks.gateway.fleet import answers
from producer.contract import keys

STUB = Path(__file__).parents[2] / "tests" / "openai_stub.py"
"""A server without a model that misbehaves on request; see its ``--help``."""

Say = Callable[[str], None]


def worker(arena: Arena, model: str, name: str = "") -> subprocess.Popen[bytes]:
    """Start a worker of a model, and wait until it takes jobs."""
    name = name or model
    process = arena.spawn(name, "workers", "--model", model, "--device", "cpu:0", "--name", name)
    wait_for(lambda: arena.is_ready(name), f"worker {name}: see {arena.log(name)}")
    return process


def gateway(arena: Arena, port: int) -> subprocess.Popen[bytes]:
    """Start a gateway, and wait until it answers."""
    name = f"gateway-{port}"
    process = arena.spawn(name, "deploy.cli", "gateway", "--port", str(port))
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), f"a gateway: see {arena.log(name)}")
    return process


def await_rounds(redis: Redis, number: int, what: str = "") -> None:
    """Wait until the autoscaler has published what it saw as many times.

    Raises:
        TimeoutError: it did not; with ``what`` to look at.
    """
    seen: set[bytes | str] = set()

    def looked() -> bool:
        seen.update({redis.get(keys.devices()) or b""} - {b""})
        return len(seen) > number

    wait_for(looked, f"{number} rounds of the autoscaler{what}")


def added(environment: Mapping[str, str]) -> tuple[str, ...]:
    """A prefix for ``Arena.spawn`` that adds to the environment, in which no GPUs are assigned."""
    fresh = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    return ("env", "-u", "CUDA_VISIBLE_DEVICES", *(f"{name}={value}" for name, value in fresh.items()))
