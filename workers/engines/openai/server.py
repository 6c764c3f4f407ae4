"""The server as a child process, which ends with the worker at the latest and writes to the worker's log."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

import psutil

from producer.contract.errors import ConfigError

from . import lifeline

logger = logging.getLogger(__name__)

LAST_LINES = 20
_REACHED_BY_LOOPBACK = ("127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1")  # noqa: S104  addresses that are looked for


def free_port() -> int:
    """A port of the loopback interface that is free at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EngineServer:
    """A server, started on creation in a process group of its own.

    Args:
        command: program and arguments.
        env: variables in addition to this process's environment.
        stop_s: time between SIGTERM and SIGKILL, in seconds.

    Raises:
        ConfigError: when the program does not exist.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stop_s: float) -> None:
        self._stop_s = stop_s
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        env = {**os.environ, **env}
        if shutil.which(command[0], path=env.get("PATH")) is None:
            raise ConfigError(
                f"options.command: no program {command[0]!r}; install it where the workers run, or give its path"
            )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", lifeline.__file__, str(stop_s), *command],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._log = threading.Thread(target=self._read_log, name="server log", daemon=True)
        self._log.start()

    @property
    def ended(self) -> str | None:
        """How the server ended, with the last lines of its log; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._log.join(1)  # its last lines may not have been read yet
        return f"{_cause(code)}; {self.last_lines}"

    @property
    def last_lines(self) -> str:
        """The last lines of the server's log."""
        return "the end of its log:\n" + "\n".join(self._last_lines) if self._last_lines else "it wrote nothing"

    def stranger_on(self, port: int) -> str | None:
        """The other process that listens on ``port`` of loopback, in words; None when only the server does.

        A port may be taken between the moment in which it is chosen and the one in which the server binds it.
        """
        try:
            family = psutil.Process(self._process.pid)
            own = {family.pid, *(child.pid for child in family.children(recursive=True))}
        except psutil.NoSuchProcess:
            return "the server has ended"
        listening = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.laddr.ip in _REACHED_BY_LOOPBACK
        ]
        for pid in listening:
            if pid not in own:
                return "a process of another user" if pid is None else f"process {pid}{_name(pid)}"
        return None if listening else "no process that can be seen"

    def stop(self) -> None:
        """Stop the server and all processes that it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(self._stop_s + 5)
        except subprocess.TimeoutExpired:
            logger.error("the server does not end even when killed: the kernel holds it")
            self._process.kill()
            self._process.wait()
        self._log.join(1)

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as log:
            for line in log:
                if text := line.decode(errors="replace").rstrip():
                    self._last_lines.append(text)
                    logger.info("server: %s", text)


def _name(pid: int) -> str:
    try:
        return f" ({psutil.Process(pid).name()})"
    except psutil.Error:
        return ""


def _cause(code: int) -> str:
    code = 128 - code if code < 0 else code
    if code > 128:
        try:
            return f"killed by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"exit code {code}"
