"""Ports on loopback: free ones, ones that are kept from run to run so that addresses stay good, and who answers."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now. Connections that linger from the last one are no hindrance."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
        return True


def address(file: Path) -> str | None:
    """Where the part listens whose port is noted in ``file``; None when it never ran here."""
    try:
        return f"http://127.0.0.1:{int(file.read_text())}"
    except (FileNotFoundError, ValueError):
        return None


def answers(address: str | None, path: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET there is answered with 200 now."""
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
    """The port noted in ``file`` when it is still free, else a new one, which is noted there."""
    try:
        port = int(file.read_text())
        if port > 0 and is_free(port):
            return port
    except (FileNotFoundError, ValueError):  # the first run, or a file that was cut short
        pass
    port = free_port()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{port}\n")
    return port
