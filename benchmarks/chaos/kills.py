"""Scenario 1: SIGKILL for workers, the autoscaler and Redis at random moments, under load."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from autoscaler.launchers import records
from benchmarks.bars import Bar, percentile

from .announcements import Announcements
from .arena import OUTAGE, Arena, wait_for
from .plan import Kill, plan
from .redelivery import Redelivery
from .verdict import Verdict, judge

LEASE_S = 3.0
DELAY_S = 0.3
"""How long a batch of the echo engine takes."""
REPLICAS = 3
AHEAD = 300
"""How many jobs are kept submitted beyond those that are done."""
CHUNK = 50

TABLES = """
[scaling]
interval_s = 0.5
[[devices]]
name = "cpu:0"
[[devices]]
name = "cpu:1"
[[devices]]
name = "cpu:2"
"""

Say = Callable[[str], None]


class Siege:
    """The fleet, its submitter and its killer."""

    def __init__(self, arena: Arena, rng: random.Random, jobs: int, kills: list[Kill], say: Say) -> None:
        self.arena = arena
        self.rng = rng
        self.jobs = arena.jobs(range(jobs))
        self.ids = [job.id for job in self.jobs]
        self.kills = kills
        self.say = say
        self.done: dict[str, int] = {"worker": 0, "autoscaler": 0, "redis": 0}
        self.heard = Announcements(arena.server.url)
        self.redelivery = Redelivery(arena.server.url, self.heard)
        self.autoscaler: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Until every job has a result and nothing is left anywhere, or nothing moves any more."""
        self.heard.start()
        self.redelivery.start()
        self._start_autoscaler()
        submitter = threading.Thread(target=self._submit, name="submitter", daemon=True)
        submitter.start()
        try:
            for kill in self.kills:
                self._wait_for_progress(kill.done)
                time.sleep(kill.delay_s)
                self._kill(kill.what)
            self._wait_for_progress(len(self.ids))
            with suppress(TimeoutError):  # what is left then is the verdict's to count
                wait_for(lambda: not self.arena.residue(), "the last leases to go", 30)
        finally:
            self._ended.set()
            submitter.join()
            self.redelivery.stop()
            self.heard.stop()

    def _submit(self) -> None:
        try:
            for start in range(0, len(self.jobs), CHUNK):
                while start - len(self.heard.first) > AHEAD:
                    if self._ended.wait(0.02):
                        return
                self.arena.submit(self.jobs[start : start + CHUNK])
        except Exception as error:
            self._failure = error

    def _wait_for_progress(self, done: int) -> None:
        """Wait until ``done`` jobs are done. Gives up after two minutes without progress."""
        last, since, looked = -1, time.monotonic(), time.monotonic()
        while len(self.heard.first) < done:
            now = time.monotonic()
            if self._failure is not None:
                raise RuntimeError("jobs could not be submitted") from self._failure
            if len(self.heard.first) != last:
                last, since = len(self.heard.first), now
            elif now - since > 120:
                self.say(f"  nothing moved for two minutes at {last} of {len(self.ids)} jobs")
                return
            if now - looked > 2:  # announcements that were lost
                looked = now
                with suppress(*OUTAGE):
                    self.heard.catch_up(self.ids)
            time.sleep(0.02)

    def _kill(self, what: str) -> None:
        done = len(self.heard.first)
        if what == "redis":
            self.arena.server.kill()
            time.sleep(self.rng.uniform(0.1, 1.0))
            self.arena.server.start()
        elif what == "autoscaler":
            assert self.autoscaler is not None
            self.autoscaler.kill()
            self.autoscaler.wait()
            self._start_autoscaler()
        else:
            what = "worker " + self._kill_worker()
        self.done[what.partition(" ")[0]] += 1
        self.say(f"  {done:6d} done: killed {what} ({sum(self.done.values())} of {len(self.kills)})")

    def _kill_worker(self) -> str:
        def living() -> list[records.Record]:
            return records.read_all(self.arena.run_dir)

        victim = self.rng.choice(wait_for(living, "a worker to kill"))
        records.send(victim, signal.SIGKILL)
        self.redelivery.killed(victim.name)
        return victim.name

    def _start_autoscaler(self) -> None:
        self.autoscaler = self.arena.spawn("autoscaler", "autoscaler")


def run(folder: Path, seed: int, jobs: int, kills: tuple[int, int, int], say: Say) -> tuple[list[Bar], Verdict]:
    """Play it; ``kills`` are how many of workers, autoscalers and servers."""
    rng = random.Random(seed)
    # No job is at fault for a kill: with max_losses at 1000 no job becomes a suspect or a dead letter for
    # having been in a killed worker's hands. A dead letter would count as lost.
    with Arena(
        folder,
        lease_s=LEASE_S,
        options=f"delay_s = {DELAY_S}",
        max_losses=1000,
        replicas=REPLICAS,
        tables=TABLES,
    ) as arena:
        siege = Siege(arena, rng, jobs, plan(rng, jobs, *kills), say)
        began = time.monotonic()
        siege.run()
        took = time.monotonic() - began
        verdict = judge(arena, siege.heard, siege.ids)
        redelivery = siege.redelivery
    p99 = percentile(redelivery.took, 0.99)
    worst = max(redelivery.took, default=0.0)
    say(
        f"  {jobs} jobs in {took:.0f} s by {verdict.workers} workers, {verdict.rerun} run more than once; "
        f"{len(redelivery.took)} jobs were in killed hands, redelivered within {worst:.1f} s at most; "
        f"{redelivery.unattributed} workers were killed before their first answer; "
        f"lease {LEASE_S:g} s, batches of {DELAY_S:g} s, max_losses 1000"
    )
    note = f"of {jobs}, lease {LEASE_S:g} s" + (f": {verdict.residue}" if verdict.residue else "")
    return [
        Bar("1 jobs", jobs, 10_000, "higher"),
        Bar("1 kills", sum(siege.done.values()), 40, "higher"),
        Bar("1 kills of Redis", siege.done["redis"], 3, "higher"),
        Bar("1 kills of the autoscaler", siege.done["autoscaler"], 3, "higher"),
        Bar("1 lost", verdict.lost, 0),
        Bar("1 committed twice", verdict.twice, 0),
        Bar("1 stuck", verdict.stuck, 0, note=note),
        Bar(
            "1 redelivery p99, s",
            None if p99 is None else round(p99, 2),
            LEASE_S + 5,
            note=f"{len(redelivery.took)} jobs, most {worst:.1f} s, {redelivery.waiting} never seen again",
        ),
    ], verdict
