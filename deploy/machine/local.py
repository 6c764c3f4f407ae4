"""The supervisor of one machine's fleet: it keeps a server, the autoscaler, Flower and a gateway running.

The server is started only when no Redis is configured.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import redis

from autoscaler.launchers import orphans, records
from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.fleet.fleet_file import FleetFile
from producer.contract.fleet.settings import URL_VARIABLE, Settings
from producer.contract.server.connection import connect
from producer.contract.server.redis_url import shown

from . import broker, flower, gateway, private, teardown
from .ports import kept_port
from .supervise import Child
from .users import Users

TEND_S = 0.2
TRIES = 2
"""Starts of a process that may fail before the fleet is up: the first may have lost a race for a port."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Besides:
    """The optional processes of the fleet: whether each of them runs, and the gateway's port if one is asked for."""

    flower: bool = True
    gateway: bool = True
    port: int | None = None

    @property
    def options(self) -> list[str]:
        """The options of ``stoker up`` that select the same processes."""
        without = [f"--no-{name}" for name in ("flower", "gateway") if not getattr(self, name)]
        return without if self.port is None else [*without, "--port", str(self.port)]

    @property
    def roles(self) -> set[str]:
        """The roles under which these processes are recorded."""
        return {name for name in ("flower", "gateway") if getattr(self, name)}


ALL = Besides()


class AlreadyRunningError(StokerError):
    """A supervisor of this fleet is running already."""


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the fleet's lock. The kernel releases it when the process ends, even by SIGKILL.

    Raises:
        AlreadyRunningError: another supervisor holds the lock.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError("the fleet is already running here; 'stoker down' stops it") from None
        yield


def embedded_users(settings: Settings) -> Users | None:
    """The server to run on this machine, with its previous port and passwords, and its users; None when a Redis is
    configured."""
    if settings.redis.url or os.environ.get("REDIS_URL"):
        return None
    home = settings.state_dir / "redis"
    if any(record.name == "server" for record in records.read_all(settings.state_dir / "run")):
        port = int((home / "port").read_text())  # in use by this fleet's own server
    else:
        port = kept_port(home / "port")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = {"maxmemory": str(int(settings.redis.max_memory_share * memory)), "maxmemory-policy": "noeviction"}
    return Users(home, port, FleetFile(part="up"), **limits)


def unready(settings: Settings, besides: Besides) -> str:
    """The reason why the fleet cannot be used yet; empty when it is ready."""
    try:
        client = connect(settings, socket_timeout=2, socket_connect_timeout=2)
        with contextlib.closing(client):
            if not client.exists(keys.leader()):
                return "no autoscaler leads yet"
    except (redis.RedisError, StokerError) as error:
        return f"the server does not answer: {error}"
    if besides.gateway and not gateway.answers(settings):
        return "the gateway does not answer yet"
    return "Flower does not answer yet" if besides.flower and not flower.answers(settings) else ""


def where(settings: Settings, besides: Besides) -> list[str]:
    """The addresses and paths of the fleet's parts, one line for each, without secrets."""
    own = settings.url_file.exists()
    full = f"; for a program: REDIS_URL=$(cat {_near(settings.url_file)})" if own else ""
    password = _near(flower.password_file(settings))
    told = gateway.told_port(settings, besides.port)
    monitor = f"Flower   {flower.url(settings)}; user {flower.USER}, password in {password}"
    return [
        f"Redis    {shown(settings.redis_url)}{full}",
        *([f"OpenAI   {gateway.url(settings)}/v1{told}"] if besides.gateway else []),
        *([monitor] if besides.flower else []),
        f"Logs     {_near(settings.state_dir / 'logs')}",
        "Status   stoker status",
        "Stop     stoker down",
    ]


def _near(path: Path) -> str:
    """The path relative to the working directory if it lies inside, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def up(settings: Settings, say: Say, besides: Besides = ALL) -> None:
    """Run the fleet until SIGINT or SIGTERM, then stop all of it. A second signal kills what still runs.

    Raises:
        AlreadyRunningError: the fleet is running already.
        BrokerUnavailable: the configured Redis cannot be used, or no server can be started.
        ConfigError: the port asked for is taken.
        StartFailed: another process cannot be started.
    """
    os.umask(0o077)  # files of this process and its children may hold users' inputs
    with only_one(settings.state_dir):
        stop = threading.Event()

        def asked(_: int, __: FrameType | None) -> None:
            stop.set()
            _on_signal(signal.default_int_handler)  # a second signal interrupts the wait

        _on_signal(asked)
        run_dir = settings.state_dir / "run"
        records.write(run_dir, records.of_process(os.getpid(), "supervisor", "supervisor"))
        try:
            _run(settings, say, stop, besides)
        finally:
            _stop(settings, say)
            records.remove(run_dir, "supervisor")
            teardown.clear(run_dir)
            say("stopped")


def _on_signal(handler: Callable[[int, FrameType | None], None]) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, handler)


def _run(settings: Settings, say: Say, stop: threading.Event, besides: Besides) -> None:
    run_dir, log_dir = settings.state_dir / "run", settings.state_dir / "logs"
    log_dir.mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    if besides.gateway:
        gateway.settle_port(settings, besides.port)

    def keep(name: str, spawn: Callable[[], subprocess.Popen[bytes]], log: Path) -> None:
        child = Child(name, spawn, run_dir, log, say)
        child.start(time.monotonic())
        children.append(child)

    users = embedded_users(settings)
    if users is not None:
        keep("server", users.server.spawn, users.server.log)
        users.server.wait_until_ready(say)
        private.write(settings.url_file, users.server.url)
        users.grant(settings)  # to a server that runs since before this supervisor
    else:
        settings.url_file.unlink(missing_ok=True)
        say(_joined(settings))
    for warning in broker.check(settings):
        say(f"warning: {warning}")

    def keep_part(name: str, role: str, spawn: Callable[[Path, dict[str, str]], subprocess.Popen[bytes]]) -> None:
        log = log_dir / f"{name}.log"
        keep(name, lambda: spawn(log, {**os.environ, **(users.environment(role) if users else {})}), log)

    keep_part("autoscaler", "autoscaler", partial(_spawn, "autoscaler"))
    if besides.flower:
        keep_part("flower", "monitor", partial(flower.spawn, settings))
    if besides.gateway:
        keep_part("gateway", "gateway", partial(gateway.spawn, settings, besides.port))
        keep_part("batches", "batches", partial(_spawn, "gateway.batches"))

    announced = False
    while not stop.is_set():
        if users is not None:
            users.follow()
        for child in children:
            child.tend(time.monotonic(), math.inf if announced else TRIES)
        orphans.collect(child.process for child in children if child.process is not None)
        if not announced and not unready(settings, besides):
            announced = True
            say("the fleet is up\n" + "\n".join(f"  {line}" for line in where(settings, besides)))
        stop.wait(TEND_S)


def _joined(settings: Settings) -> str:
    """What to tell of a configured Redis: an exported variable may be left over from other work."""
    origin = settings.redis_url_from
    cure = "unset it" if origin in ("REDIS_URL", URL_VARIABLE) else "leave it out"
    return (
        f"the fleet uses Redis at {shown(settings.redis_url)}, as {origin} says, and starts no server: "
        f"{cure} to have 'stoker up' start one"
    )


def _spawn(module: str, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            # -P: a folder of the same name in the working directory must not be imported instead.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the supervisor, which stops the others in order
        )


def _stop(settings: Settings, say: Say) -> None:
    grace = teardown.graces(settings)
    others = teardown.ORDER[1:]
    if any(record.role == "worker" for record in records.read_all(settings.state_dir / "run")):
        say(f"workers get {grace['worker']:g} s to finish their jobs; press Ctrl-C again to kill them now")
    try:
        teardown.stop_all(settings, say, grace, others)
    except KeyboardInterrupt:
        teardown.stop_all(settings, say, dict.fromkeys(others, 0.0), others)
