"""The gateway of one machine, beside its fleet: on loopback, on a port that stays the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from producer.contract.settings import Settings

from . import ports


def port_file(settings: Settings) -> Path:
    """Where its port is noted, so that its address stays the same from run to run."""
    return settings.state_dir / "gateway.port"


def url(settings: Settings) -> str | None:
    """Its address; None when it never ran here."""
    return ports.address(port_file(settings))


def spawn(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start it on the port it last had, if that is free. Returns at once."""
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
    """Whether it can serve now."""
    return ports.answers(url(settings), "/readyz")
