"""What became of the jobs of a scenario: lost, committed twice, stuck, or answered once each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer.contract import keys
from producer.contract.errors import StokerError
from producer.contract.message.celery_message import decode

from . import audit
from .announcements import Announcements
from .arena import Arena


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of jobs."""

    lost: int
    """Jobs without a result, with a failed one (also dead letters), or with the result of another job."""
    twice: int
    """With more than one final result stored or announced, or with one that changed after it was first seen."""
    stuck: int
    """Still queued, in flight, leased, suspect or deferred, counted where they are."""
    rerun: int
    """Run more often than once: a killed worker costs that, and it is allowed."""
    residue: str
    """Where the stuck ones are."""
    workers: int
    """How many workers had a share."""


def judge(arena: Arena, heard: Announcements, ids: Sequence[str]) -> Verdict:
    """Judge jobs whose inputs are ``job 0``, ``job 1``, ... in the order of ``ids``; wants the server up."""
    heard.catch_up(ids)
    stored = dict(zip(ids, arena.redis.mget([keys.result(each) for each in ids]), strict=True))
    commits = audit.commits(arena.server.data_dir)
    lost, twice, workers = 0, 0, set()
    for number, job_id in enumerate(ids):
        worker = _answered_by(stored[job_id], f"job {number}")
        lost += worker is None
        workers.add(worker)
        changed = job_id in heard.first and heard.first[job_id] != stored[job_id]
        twice += commits[job_id] > 1 or heard.heard[job_id] > 1 or changed
    residue = arena.residue()
    rerun = sum(count > 1 for count in audit.runs(arena.journal).values())
    where = ", ".join(f"{count} {place}" for place, count in residue.items())
    return Verdict(lost, twice, sum(residue.values()), rerun, where, len(workers - {None}))


def _answered_by(stored: bytes | None, expected: str) -> str | None:
    """The worker that answered, if there is an answer and it is the right one."""
    try:
        result = decode(stored) if stored is not None else None
    except StokerError:
        return None
    return result.timing.worker if result is not None and result.output == expected else None
