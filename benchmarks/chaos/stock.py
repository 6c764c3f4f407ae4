"""Stock Celery under the same kills, for comparison: what its own transport loses, strands and runs again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis as redis_py

from deploy.machine.server import Server
from producer.contract import keys

from . import audit
from .announcements import Announcements
from .arena import AUDITED, OUTAGE
from .plan import plan

DELAY_S = 0.03
WORKERS = 3
PATIENCE_S = 130.0
"""How long to wait for what is unacknowledged: Kombu sweeps it about every 100 s."""


class Stock:
    """Three workers of stock Celery, started again when they are killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.server = Server(folder / "server", **AUDITED)  # type: ignore[arg-type]  # port is not a text
        self.redis: Any = redis_py.Redis.from_url(self.server.url, socket_timeout=5)
        self.workers: list[subprocess.Popen[bytes]] = []
        self._born = 0

    def start(self) -> None:
        """Server and workers."""
        self.server.start()
        self.workers = [self._worker() for _ in range(WORKERS)]

    def environment(self) -> dict[str, str]:
        """What ``stock_app`` reads."""
        return {
            **os.environ,
            "STOCK_URL": self.server.url,
            "STOCK_JOURNAL": str(self.journal),
            "STOCK_DELAY_S": str(DELAY_S),
        }

    def _worker(self) -> subprocess.Popen[bytes]:
        self._born += 1
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.chaos.stock_app:app", "worker", "-c", "1"]
        command += ["-n", f"stock{self._born}@%h", "--without-gossip", "--without-mingle", "-l", "WARNING"]
        with (self.folder / f"stock{self._born}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, rng: random.Random, what: str) -> None:
        """Kill a worker with its child, as losing its machine or container would, or the server; and start anew."""
        if what == "redis":
            self.server.kill()
            time.sleep(rng.uniform(0.1, 1.0))
            self.server.start()
            return
        place = rng.randrange(WORKERS)
        _end(self.workers[place])
        self.workers[place] = self._worker()

    def submit(self, count: int) -> list[str]:
        """All before the first kill, so that none is queued twice by a producer that tries again."""
        program = (
            "import sys; from benchmarks.chaos.stock_app import echo\n"
            "for n in range(int(sys.argv[1])): print(echo.delay(f'job {n}').id)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(count)],
            env=self.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    def close(self) -> None:
        """End everything."""
        for worker in self.workers:
            _end(worker)
        self.redis.close()
        self.server.kill()


def _end(worker: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def run(folder: Path, seed: int, jobs: int, kills: tuple[int, int], say: Callable[[str], None]) -> dict[str, Any]:
    """Play it; ``kills`` are how many of workers and servers. Returns the counts."""
    rng = random.Random(seed)
    stock = Stock(folder)
    heard = Announcements(stock.server.url)
    try:
        stock.start()
        heard.start()
        ids = stock.submit(jobs)
        for kill in plan(rng, jobs, kills[0], 0, kills[1]):
            _until(heard, ids, kill.done, 30)
            time.sleep(kill.delay_s)
            stock.kill(rng, kill.what)
        ended = _until(heard, ids, jobs, PATIENCE_S)
        counts = _count(stock, ids)
    finally:
        heard.stop()
        stock.close()
    waited = "all ended" if ended else f"nothing moved for {PATIENCE_S:g} s"
    say(
        f"  stock Celery: {jobs} jobs of {DELAY_S:g} s, {sum(kills)} kills ({kills[1]} of Redis), {waited}: "
        f"lost {counts['lost']} ({counts['lost_per_10000']:g} of 10,000), still unacknowledged {counts['unacked']}, "
        f"still queued {counts['queued']}, run again {counts['run_again']}, stored twice {counts['stored_twice']}"
    )
    return {"jobs": jobs, "kills": sum(kills), **counts}


def _until(heard: Announcements, ids: list[str], done: int, patience_s: float) -> bool:
    """Wait for ``done`` results. Returns False if none came for ``patience_s`` seconds."""
    last, since = -1, time.monotonic()
    while len(heard.first) < done:
        with suppress(*OUTAGE):
            heard.catch_up(ids)
        if len(heard.first) != last:
            last, since = len(heard.first), time.monotonic()
        elif time.monotonic() - since > patience_s:
            return False
        time.sleep(0.1)
    return True


def _count(stock: Stock, ids: list[str]) -> dict[str, Any]:
    stored = stock.redis.mget([keys.result(each) for each in ids])
    unacked = b"".join(stock.redis.hvals("unacked"))
    queued = b"".join(stock.redis.lrange("celery", 0, -1))
    missing = [job_id for job_id, found in zip(ids, stored, strict=True) if found is None]
    waiting = [job_id for job_id in missing if job_id.encode() in queued]
    held = [job_id for job_id in missing if job_id.encode() in unacked and job_id not in waiting]
    lost = len(missing) - len(held) - len(waiting)
    commits = audit.commits(stock.server.data_dir)
    return {
        "lost": lost,
        "lost_per_10000": round(lost / len(ids) * 10_000, 1),
        "unacked": len(held),
        "queued": len(waiting),
        "run_again": sum(times > 1 for times in audit.runs(stock.journal).values()),
        "stored_twice": sum(times > 1 for times in commits.values()),
    }
