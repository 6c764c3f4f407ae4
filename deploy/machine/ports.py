"""Ports on loopback: free ports, ports kept across runs so that URLs stay valid, and a check for an answer."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path


def free_port() -> int:
    """A TCP port on loopback that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now, ignoring connections in TIME_WAIT."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def address(file: Path) -> str | None:
    """The URL of the process whose port is recorded in ``file``; None when it has never run here."""
    try:
        return f"http://127.0.0.1:{int(file.read_text())}"
    except (FileNotFoundError, ValueError):
        return None


def answers(address: str | None, path: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET of ``path`` is answered with status 200 within 2 s."""
    if address is None:
        return False
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kept_port(file: Path) -> int:
    """The port recorded in ``file`` if it is still free, else a new one, which is then recorded there."""
    try:
        port = int(file.read_text())
        if port > 0 and is_free(port):
            return port
    except (FileNotFoundError, ValueError):  # the first run, or a file that was cut short
        pass
    port = free_port()
    keep_port(file, port)
    return port


def keep_port(file: Path, port: int) -> None:
    """Record a port for :func:`kept_port`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{port}\n")
