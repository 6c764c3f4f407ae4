"""The gateway of a machine's fleet: it listens on loopback, on the same port across runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from producer.contract.settings import Settings

from . import ports


def port_file(settings: Settings) -> Path:
    """The file that records the gateway's port, so that its URL stays the same across runs."""
    return settings.state_dir / "gateway.port"


def url(settings: Settings) -> str | None:
    """The gateway's URL; None when it has never run here."""
    return ports.address(port_file(settings))


def spawn(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start the gateway and return at once. It gets its previous port if that is free, else a new one."""
    port = str(ports.kept_port(port_file(settings)))
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.cli", "gateway", "--port", port],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def answers(settings: Settings) -> bool:
    """Whether the gateway is ready to serve now."""
    return ports.answers(url(settings), "/readyz")
