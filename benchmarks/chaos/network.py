"""A network that can be cut: a namespace with a worker in it, joined to the server by a pair of virtual links."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType
from typing import Self


def obstacle() -> str:
    """What stands in the way of a partition, with its cure; empty when nothing does."""
    if shutil.which("ip") is None:
        return "no 'ip' here: install it with 'apt-get install iproute2'"
    if os.geteuid() != 0:
        return "network namespaces need root: run as root"
    made = subprocess.run(["ip", "netns", "add", f"probe{os.getpid()}"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces do not work here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", f"probe{os.getpid()}"], check=False)
    return ""


class Network:
    """The far end of a wire, which can be cut and mended. Wants root and iproute2."""

    def __init__(self) -> None:
        number = os.getpid() % 250 + 1
        self.name = f"stoker{os.getpid()}"
        self.near = f"sk{os.getpid()}a"
        self._far = f"sk{os.getpid()}b"
        self.near_address = f"10.231.{number}.1"
        self._far_address = f"10.231.{number}.2"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command, to run it at the far end."""
        return ("ip", "netns", "exec", self.name)

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        _ip("link", "add", self.near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", self.name)
        _ip("address", "add", f"{self.near_address}/24", "dev", self.near)
        _ip("link", "set", self.near, "up")
        for command in (("address", "add", f"{self._far_address}/24", "dev", self._far), ("link", "set", "lo", "up")):
            _ip("-n", self.name, *command)
        _ip("-n", self.name, "link", "set", self._far, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["ip", "link", "delete", self.near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)

    def cut(self) -> None:
        """From now on nothing gets through, and neither end is told."""
        _ip("-n", self.name, "link", "set", self._far, "down")

    def mend(self) -> None:
        """Everything gets through again."""
        _ip("-n", self.name, "link", "set", self._far, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
