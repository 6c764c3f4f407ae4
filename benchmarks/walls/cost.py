"""``python -m benchmarks.walls.cost --against COMMIT``: what the walls cost, side by side with a commit before them.

Both commits run a fleet on this machine at the same time: a server, a worker with an echo, a gateway. They are asked in
turns, and each figure is the median of the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import redis

from benchmarks.bars import Bar, conclude
from benchmarks.chaos.arena import wait_for
from benchmarks.gateway.fleet import answers
from benchmarks.gateway.http import Connection
from deploy.machine.ports import free_port
from deploy.machine.server import Server

ROOT = Path(__file__).parents[2]
DEARER = 1.05
CONNECTIONS = 16
FLEET = """
[redis]
url = "{url}"
[models.talk]
engine = "echo"
max_concurrency = 64
options = {{ task = "generate", delay_s = 0 }}
"""
PARTS = {
    "time": "time a request through the gateway",
    "worker": "CPU of the worker a job",
    "server": "CPU of the server a job",
}
BODY = {"model": "talk", "prompt": "hello", "max_tokens": 1}


class Tree:
    """The fleet of a checkout."""

    def __init__(self, root: Path, folder: Path) -> None:
        folder.mkdir()
        self._root, self._folder = root, folder
        self._server = Server(folder / "server", appendfsync="everysec")
        self._file = folder / "fleet.toml"
        self._file.write_text(FLEET.format(url=self._server.url))
        self.port = free_port()
        self._parts: dict[str, psutil.Popen] = {}

    def __enter__(self) -> Self:
        self._server.start()
        self._start("worker", "workers", "--model", "talk", "--device", "cpu:0", "--name", "w")
        self._start("gateway", "deploy.cli", "gateway", "--port", str(self.port))
        wait_for(lambda: answers(f"http://127.0.0.1:{self.port}/readyz"), f"a gateway: see {self._folder}")
        asyncio.run(self.ask(100))  # which also waits for the worker
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts.values():
            part.kill()
            part.wait()
        self._server.kill()

    def _start(self, name: str, *arguments: str) -> None:
        # The checkout's own modules come before those that are installed.
        environment = {**os.environ, "STOKER_FLEET": str(self._file), "PYTHONPATH": str(self._root)}
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", *arguments]
            self._parts[name] = psutil.Popen(command, cwd=self._root, env=environment, stdout=log, stderr=log)

    def _cpu_s(self) -> dict[str, float]:
        times = {name: part.cpu_times() for name, part in self._parts.items()}
        found = {name: each.user + each.system for name, each in times.items()}
        with contextlib.closing(redis.Redis.from_url(self._server.url)) as client:
            used = client.info("cpu")
        return found | {"server": used["used_cpu_user"] + used["used_cpu_sys"]}

    async def ask(self, count: int) -> None:
        """Ask for as many answers, a few at a time."""

        async def one() -> None:
            async with Connection(self.port) as connection:
                for _ in range(count // CONNECTIONS):
                    status, content = await connection.post("/v1/completions", BODY)
                    if status != 200:
                        raise RuntimeError(f"answered with {status}: {content[:200]!r}")

        await asyncio.gather(*(one() for _ in range(CONNECTIONS)))

    def round(self, count: int) -> dict[str, float]:
        """Seconds, and seconds of CPU of each part, a request."""
        before, began = self._cpu_s(), time.perf_counter()
        asyncio.run(self.ask(count))
        took = time.perf_counter() - began
        return {name: (used - before[name]) / count for name, used in self._cpu_s().items()} | {"time": took / count}


@contextlib.contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """A worktree of a commit, removed afterwards."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _in_turns(commit: str, count: int, requests: int) -> dict[str, list[dict[str, float]]]:
    """What each round of the commit and of this checkout took, a request."""
    rounds: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stoker-cost-")))
        roots = {"before": stack.enter_context(checkout(commit, place / "tree")), "now": ROOT}
        trees = {name: stack.enter_context(Tree(root, place / name)) for name, root in roots.items()}
        for _ in range(count):
            for name, tree in trees.items():
                rounds[name].append(tree.round(requests))
                print(name, *(f"{part} {1e6 * took:.0f} us" for part, took in rounds[name][-1].items()), flush=True)
    return rounds


def main() -> int:
    """Ask both in turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walls.cost", description=__doc__)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1600, help="in each round; default: %(default)s")
    options = parser.parse_args()
    began = time.monotonic()
    rounds = _in_turns(options.against, options.rounds, options.requests)
    medians = {
        name: {part: statistics.median(one[part] for one in found) for part in PARTS} for name, found in rounds.items()
    }
    bars = [
        Bar(
            f"{figure}, times that before",
            round(medians["now"][part] / medians["before"][part], 3),
            DEARER,
            note=f"{1e6 * medians['before'][part]:.0f} us before, {1e6 * medians['now'][part]:.0f} us now",
        )
        for part, figure in PARTS.items()
    ]
    return conclude("walls.cost", bars, began, against=options.against)


if __name__ == "__main__":
    sys.exit(main())
