"""Scenario 4: hostile and malformed messages among good jobs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.bars import Bar
from producer.contract import keys
from producer.contract.message import celery_message

from . import audit
from .announcements import Announcements
from .arena import MODEL, Arena, wait_for
from .fuzz import Fate, Hostile, hostile
from .verdict import judge

LEASE_S = 5.0
TIER = "standard"


def run(folder: Path, seed: int, count: int, say: Callable[[str], None]) -> list[Bar]:
    """Push ``count`` hostile messages among as many good jobs, to two workers."""
    rng = random.Random(seed)
    with Arena(folder, lease_s=LEASE_S, options="delay_s = 0.0", max_concurrency=8) as arena:
        heard = Announcements(arena.server.url)
        heard.start()
        try:
            return _play(arena, heard, rng, count, say)
        finally:
            heard.stop()


def _play(arena: Arena, heard: Announcements, rng: random.Random, count: int, say: Callable[[str], None]) -> list[Bar]:
    canary = arena.folder / "canary"
    workers = [arena.worker(f"w{n}") for n in range(2)]
    good = arena.jobs(range(count), TIER)
    bad = hostile(rng, count, keys.queue(MODEL, TIER), canary)
    ids = [job.id for job in good]
    for job, each in zip(good, bad, strict=True):  # side by side on one queue, so that they share batches
        arena.redis.lpush(keys.queue(MODEL, TIER), each.message)
        arena.submit([job])
    with suppress(TimeoutError):  # what is left is counted below
        wait_for(lambda: not arena.residue(), "every message to end", 60)
    after = arena.jobs(range(count, count + 20), TIER)
    ids += [job.id for job in after]
    arena.submit(after)
    with suppress(TimeoutError):
        wait_for(lambda: not arena.residue(), "the jobs after them to end", 20)
    restarts = sum(process.poll() is not None for process in workers)
    outcomes = _outcomes(arena, bad)
    verdict = judge(arena, heard, ids)
    for each, outcome in outcomes:
        if not _right(each, outcome):
            say(f"  {each.kind}: became {outcome or 'nothing'}, has to become a {each.fate}")
    wrong = sum(not _right(each, outcome) for each, outcome in outcomes)
    tally = Counter(outcome.partition(":")[0] for _, outcome in outcomes)
    judged = sum(each.fate is not Fate.ANY for each in bad)
    note = f"of {judged}; all {count}: " + ", ".join(f"{n} {outcome or 'vanished'}" for outcome, n in tally.items())
    say(f"  {count} hostile messages of {len({each.kind for each in bad})} kinds; {note}")
    return [
        Bar("4 hostile messages", count, 500, "higher"),
        Bar("4 good jobs unfinished", verdict.lost, 0, note=f"of {len(ids)}"),
        Bar("4 good jobs committed twice", verdict.twice, 0),
        Bar("4 bad ones neither dead with a reason nor failed", wrong, 0, note=note),
        Bar("4 stuck", verdict.stuck, 0, note=verdict.residue),
        Bar("4 worker restarts", restarts, 0),
        Bar("4 hostile code run", int(canary.exists()), 0),
    ]


def _right(each: Hostile, outcome: str) -> bool:
    kind = outcome.partition(":")[0]
    allowed = {Fate.DEAD: ("dead",), Fate.REFUSED: ("dead", "FAILURE")}.get(each.fate)
    return kind in allowed if allowed is not None else bool(kind)


def _outcomes(arena: Arena, bad: list[Hostile]) -> list[tuple[Hostile, str]]:
    """What became of each, ``kind: reason``; a message that ended in two ways is nowhere right."""
    dead: dict[bytes, list[str]] = {}
    for message, reason in arena.dead():
        dead.setdefault(message, []).append(reason.decode(errors="replace"))
    ran = audit.runs(arena.journal)
    found = []
    for each in bad:
        ends = [f"dead: {dead[each.message].pop()}"] if dead.get(each.message) else []
        stored = arena.redis.get(keys.result(each.job_id)) if each.job_id else None
        if celery_message.is_final(stored) and not ends:
            ends.append(_described(stored))
        if not ends and each.job_id and ran[f"hostile {each.job_id}"]:
            ends.append("ran without a result, as it asked")  # ignore_result
        found.append((each, " and ".join(ends)))
    return found


def _described(stored: bytes) -> str:
    try:
        celery_message.decode(stored)
    except Exception as error:
        kind = "REVOKED" if celery_message.status(stored) == "cancelled" else "FAILURE"
        return f"{kind}: {type(error).__name__}: {error}"
    return "SUCCESS"
