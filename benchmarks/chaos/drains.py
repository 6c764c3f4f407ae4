"""Scenario 2: scale-ins under load. SIGTERM to a worker while jobs run, a replacement started beside it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Bar, percentile
from producer.contract import heartbeat, keys
from producer.contract.heartbeat import WorkerState
from producer.contract.message import celery_message

from . import audit
from .announcements import Announcements
from .arena import MODEL, Arena, wait_for
from .verdict import judge

LEASE_S = 5.0
DELAY_S = 0.3
"""How long a batch takes."""
READY = 2
"""How many workers serve while one drains."""
STARTING = 1
"""How many are starting meanwhile."""
AHEAD = 60


@dataclass(slots=True)
class Drain:
    """One scale-in."""

    name: str
    process: subprocess.Popen[bytes]
    began: float
    took: float | None = None


class Tide:
    """Workers that come and go while jobs keep coming."""

    def __init__(self, arena: Arena, heard: Announcements, say: Callable[[str], None]) -> None:
        self.arena = arena
        self.heard = heard
        self.say = say
        self.ids: list[str] = []
        self.drains: list[Drain] = []
        self.idle = 0
        """Drains of a worker that held nothing: they prove nothing, and are not counted among the drains."""
        self._born = 0
        self._starting: dict[str, subprocess.Popen[bytes]] = {}
        self._ready: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()

    def run(self, count: int) -> None:
        """Drain ``count`` workers."""
        feeder = threading.Thread(target=self._feed, name="feeder", daemon=True)
        feeder.start()
        try:
            while len(self.drains) < count:
                self._grow()
                if len(self._ready) > READY:
                    self._drain_oldest()
                time.sleep(0.01)
            wait_for(lambda: all(drain.took is not None for drain in self.drains), "the last drains", 60)
        finally:
            self._ending.set()
            feeder.join()
        wait_for(self._grow, "a worker for what is left")
        with suppress(TimeoutError):
            wait_for(lambda: not self.arena.residue(), "the last jobs", 60)

    def _grow(self) -> bool:
        """Start what is missing, note what became ready; whether any worker is."""
        while len(self._starting) < STARTING:
            name = f"w{self._born}"
            self._born += 1
            self._starting[name] = self.arena.start_worker(name)
        beats = {beat.name for beat in heartbeat.read_all(self.arena.redis) if beat.state is WorkerState.READY}
        for name in [name for name in self._starting if name in beats]:
            self._ready[name] = self._starting.pop(name)
        return bool(self._ready)

    def _drain_oldest(self) -> None:
        name = next(iter(self._ready))
        process = self._ready.pop(name)
        running = next((beat.running for beat in heartbeat.read_all(self.arena.redis) if beat.name == name), ())
        if not running:
            self.idle += 1
        drain = Drain(name, process, time.monotonic())
        process.send_signal(signal.SIGTERM)
        threading.Thread(target=self._time, args=(drain,), daemon=True).start()
        self.drains.append(drain)
        if len(self.drains) % 20 == 0:
            self.say(f"  {len(self.drains)} workers told to go, {len(self.heard.first)} jobs done")

    def _time(self, drain: Drain) -> None:
        drain.process.wait()
        drain.took = time.monotonic() - drain.began

    def _feed(self) -> None:
        number = 0
        while not self._ending.wait(0.01):
            if number - len(self.heard.first) < AHEAD:
                jobs = self.arena.jobs(range(number, number + 10))
                number += 10
                self.ids += [job.id for job in jobs]
                self.arena.submit(jobs)


def run(folder: Path, count: int, say: Callable[[str], None]) -> list[Bar]:
    """Drain ``count`` workers."""
    with Arena(folder, lease_s=LEASE_S, options=f"delay_s = {DELAY_S}", max_concurrency=4) as arena:
        heard = Announcements(arena.server.url)
        heard.start()
        tide = Tide(arena, heard, say)
        try:
            tide.run(count)
            verdict = judge(arena, heard, tide.ids)
        finally:
            heard.stop()
        failed = sum(
            stored is not None and celery_message.status(stored) != "succeeded"
            for stored in arena.redis.mget([keys.result(each) for each in tide.ids])
        )
        losses = arena.redis.hlen(keys.losses(MODEL))
        again = sum(times > 1 for times in audit.runs(arena.journal).values())
    took = [drain.took for drain in tide.drains if drain.took is not None]
    codes = [drain.process.returncode for drain in tide.drains]
    longest = max(took, default=None)
    bad = sum(code != 0 for code in codes)
    say(
        f"  {len(took)} drains under load, {tide.idle} of workers that held nothing, {len(tide.ids)} jobs; median "
        f"{percentile(took, 0.5) or 0:.2f} s, p99 {percentile(took, 0.99) or 0:.2f} s, longest {longest or 0:.2f} s; "
        f"batches of {DELAY_S:g} s; {bad} exit codes other than 0; {losses} losses counted"
    )
    return [
        Bar("2 drains under load", len(took) - tide.idle, 200, "higher"),
        Bar("2 failed jobs", failed + verdict.lost, 0, note=f"of {len(tide.ids)}"),
        Bar("2 jobs run again", again, 0),
        Bar("2 committed twice", verdict.twice, 0),
        Bar("2 stuck", verdict.stuck, 0, note=verdict.residue),
        Bar("2 drains that did not exit 0", bad, 0),
        Bar(
            "2 longest drain, s",
            None if longest is None else round(longest, 2),
            round(DELAY_S + 1.0, 2),
            note=f"the longest running job plus 1 s; p99 {percentile(took, 0.99) or 0:.2f} s",
        ),
    ]
