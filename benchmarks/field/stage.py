"""Processes of a fleet on an arena: a worker of any model, a gateway, an autoscaler on made-up GPUs."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.chaos.arena import Arena, wait_for

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


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  our own address
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def added(environment: Mapping[str, str]) -> tuple[str, ...]:
    """A prefix for ``Arena.spawn`` that adds to the environment, in which no GPUs are assigned."""
    fresh = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    return ("env", "-u", "CUDA_VISIBLE_DEVICES", *(f"{name}={value}" for name, value in fresh.items()))
