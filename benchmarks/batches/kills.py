"""SIGKILL for gateway, batch process, worker and Redis at random moments of one batch."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.chaos import audit
from benchmarks.chaos.arena import MODEL, OUTAGE, Arena, wait_for
from producer.contract import keys

from .million import ENDED
from .stage import Say, Stage, write

LEASE_S = 3.0
DELAY_S = 0.05
"""How long a batch of the echo engine takes."""
CONCURRENCY = 64
STUCK_S = 120.0


class Siege:
    """Kills processes that a running batch needs. ``in_flight`` counts the jobs that killed workers held."""

    def __init__(self, stage: Stage, rng: random.Random, say: Say) -> None:
        self.stage = stage
        self.rng = rng
        self.say = say
        self.done: Counter[str] = Counter()
        self.in_flight = 0
        self._read = 0
        self._ran = 0

    def run(self, batch_id: str, lines: int, kinds: list[str]) -> dict[str, Any]:
        """Kill each kind in its stretch of the batch, then wait for the end."""
        stretch = 0.95 * lines / len(kinds)
        for n, what in enumerate(kinds):
            at = int((n + self.rng.random()) * stretch)
            wait_for(lambda at=at: self.ran() >= at, f"{at} lines to have run", STUCK_S)  # type: ignore[misc]
            time.sleep(self.rng.uniform(0.0, 0.3))
            self._kill(what)
            self.done[what] += 1
            self.say(f"  {self.ran():6d} lines ran: killed {what} ({n + 1} of {len(kinds)})")
        return wait_for(lambda: self._ended(batch_id), "the batch to end", STUCK_S)

    def _ended(self, batch_id: str) -> dict[str, Any] | None:
        batch = self.stage.batch(batch_id)
        return batch if batch["status"] in ENDED else None

    def ran(self) -> int:
        """How many lines have reached the engine by now, by its journal."""
        journal = self.stage.arena.journal
        if journal.exists():
            with journal.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            self._ran += new.count(b"\n")
        return self._ran

    def _kill(self, what: str) -> None:
        if what in ("gateway", "batches"):
            self.stage.kill(what)
            return
        # The worker stands still while it is counted what it holds, so that the count is exact.
        worker = self.stage.running["worker"]
        worker.send_signal(signal.SIGSTOP)
        server, redis = self.stage.arena.server, self.stage.arena.redis
        while True:
            try:
                self.in_flight += redis.hlen(keys.inflight(MODEL))
                break
            except OUTAGE:
                time.sleep(0.02)
        if what == "worker":
            self.stage.kill("worker")
            return
        server.kill()
        worker.send_signal(signal.SIGCONT)
        time.sleep(self.rng.uniform(0.1, 1.0))
        server.start()


def run(folder: Path, seed: int, lines: int, kills: int, say: Say) -> list[Bar]:
    """Play it."""
    rng = random.Random(seed)
    kinds = (["worker", "redis", "batches", "gateway"] * kills)[:kills]
    rng.shuffle(kinds)
    with (
        Arena(
            folder, lease_s=LEASE_S, options=f"delay_s = {DELAY_S}", max_concurrency=CONCURRENCY, max_losses=1000
        ) as arena,
        closing(Stage(arena)) as stage,
    ):
        stage.start()
        batch_id = stage.create(write(folder / "in.jsonl", lines))
        siege = Siege(stage, rng, say)
        began = time.monotonic()
        batch = siege.run(batch_id, lines, kinds)
        took = time.monotonic() - began
        answered = stage.answers(batch)
        runs = audit.runs(arena.journal)
        commits = audit.commits(arena.server.data_dir)
        left = wait_for(lambda: not arena.residue() or None, "the last leases to go", 30)
    again = sum(count - 1 for count in runs.values())
    say(
        f"  {lines} lines in {took:.0f} s, {dict(siege.done)} killed, {siege.in_flight} lines in flight when worker or "
        f"Redis were, {again} runs more than lines; lease {LEASE_S:g} s"
    )
    assert left
    return [
        Bar("kills: lines", lines, 20_000, "higher"),
        Bar("kills", sum(siege.done.values()), 20, "higher"),
        Bar("kills: custom_ids without exactly one right line", _wrong(answered, lines), 0),
        Bar("kills: lines answered beyond the input", len(answered.keys() - set(range(lines))), 0),
        Bar("kills: results stored twice", sum(count > 1 for count in commits.values()), 0),
        Bar("kills: lines run again", again, siege.in_flight, note="the bar is what was in flight when it was cut off"),
    ]


def _wrong(answered: Counter[int], lines: int) -> int:
    return sum(answered[number] != 1 for number in range(lines))
