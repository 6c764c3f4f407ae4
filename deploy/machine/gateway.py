"""The gateway of a machine's fleet: it listens on loopback, on port 8000 if that is free."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from autoscaler.launchers import records
from producer.contract.errors import ConfigError
from producer.contract.fleet.settings import Settings

from . import ports

PORT = 8000
"""The port of the gateway by default, which all examples name."""


def port_file(settings: Settings) -> Path:
    """The file that records the gateway's port, so that its URL stays the same across runs."""
    return settings.state_dir / "gateway.port"


def url(settings: Settings) -> str | None:
    """The gateway's URL; None when it has never run here."""
    return ports.address(port_file(settings))


def settle_port(settings: Settings, asked: int | None = None, preferred: int = PORT) -> None:
    """Choose the gateway's port for this run of the fleet, and record it.

    It is the one asked for; by default ``preferred`` if that is free, else the one of the last run or a new one. A
    gateway that still runs, left by a killed supervisor, keeps its port.

    Raises:
        ConfigError: the port asked for is taken, or the gateway still runs on another; names the cure.
    """
    file = port_file(settings)
    if any(record.name == "gateway" for record in records.read_all(settings.state_dir / "run")):
        if asked is not None and url(settings) != f"http://127.0.0.1:{asked}":
            raise ConfigError(
                f"the gateway still runs at {url(settings)}: 'stoker down' stops it, then use --port {asked}"
            )
        return
    if asked is not None and not ports.is_free(asked):
        raise ConfigError(f"port {asked} is taken by another process: name another with --port, or leave it out")
    if asked is not None or ports.is_free(preferred):
        ports.keep_port(file, asked or preferred)
    else:
        ports.kept_port(file)


def told_port(settings: Settings, asked: int | None = None, preferred: int = PORT) -> str:
    """What to tell of a port that a user does not expect; empty when it is the one asked for or ``preferred``."""
    if asked is not None or url(settings) == f"http://127.0.0.1:{preferred}":
        return ""
    return f"; port {preferred} was taken: 'stoker up --port' chooses another"


def spawn(settings: Settings, asked: int | None, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the gateway and return at once. It gets the port asked for, else the recorded one if that is free."""
    port = str(asked or ports.kept_port(port_file(settings)))
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.cli", "gateway", "--port", port],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def answers(settings: Settings) -> bool:
    """Whether the gateway is ready to serve now."""
    return ports.answers(url(settings), "/readyz")
