"""Scenario 3: workers that fall silent without being dead, and a server that restarts under them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.bars import Bar
from producer.contract import heartbeat, keys

from . import network
from .announcements import Announcements
from .arena import MODEL, OUTAGE, Arena, wait_for
from .verdict import Verdict, judge

LEASE_S = 3.0
DELAY_S = 0.3
PARTITION_S = 60.0
JOBS = 200

Say = Callable[[str], None]
Play = Callable[[Arena], list[str]]


def run(folder: Path, say: Say, partition_s: float = PARTITION_S) -> list[Bar]:
    """Play all four."""
    bars = []
    for name, play in {
        "SIGSTOP, publish, SIGKILL": _stopped_then_killed,
        "server restarts in mid-batch": _server_restarts,
        "lease expires, worker alive": _lease_expires,
    }.items():
        verdict = _judged(folder / name.partition(",")[0].replace(" ", "-"), play, name, say)
        bars += _bars(name, verdict)
    name = f"{partition_s:g} s partition"
    if why := network.obstacle():
        say(f"  {name}: NOT RUN: {why}")
        return bars + _bars(name, None, why)
    with network.Network() as wire:
        address = f"127.0.0.1 {wire.near_address}"

        def partition(arena: Arena) -> list[str]:
            return _partition(arena, say, wire, partition_s)

        config = {"bind": address, "requirepass": os.urandom(12).hex()}
        verdict = _judged(folder / "partition", partition, name, say, config)
    return bars + _bars(name, verdict)


def _judged(folder: Path, play: Play, name: str, say: Say, config: dict[str, str] | None = None) -> Verdict:
    options = f"delay_s = {DELAY_S}"
    with Arena(folder, lease_s=LEASE_S, options=options, max_losses=1000, config=config) as arena:
        heard = Announcements(arena.server.url)
        heard.start()
        try:
            ids = play(arena)
            with suppress(TimeoutError):
                wait_for(lambda: _settled(arena, heard, ids), "every job to end", 120)
            verdict = judge(arena, heard, ids)
        finally:
            heard.stop()
        say(f"  {name}: {len(ids)} jobs, {verdict.rerun} run more than once, by {verdict.workers} workers")
        return verdict


def _settled(arena: Arena, heard: Announcements, ids: list[str]) -> bool:
    heard.catch_up(ids)
    return len(heard.first) >= len(ids) and not arena.residue()


def _bars(name: str, verdict: Verdict | None, note: str = "") -> list[Bar]:
    if verdict is None:
        return [Bar(f"3 {name}: {what}", None, 0, note=note) for what in ("lost", "committed twice", "stuck")]
    return [
        Bar(f"3 {name}: lost", verdict.lost, 0),
        Bar(f"3 {name}: committed twice", verdict.twice, 0),
        Bar(f"3 {name}: stuck", verdict.stuck, 0, note=verdict.residue),
    ]


def _holds(arena: Arena, name: str) -> bool:
    """Whether a worker said within its last heartbeat that it holds jobs."""
    return any(beat.name == name and beat.running for beat in heartbeat.read_all(arena.redis))


def _stopped_then_killed(arena: Arena) -> list[str]:
    """Stop a worker in a blocking peek, and one in the middle of a batch: other workers must get their jobs."""
    jobs = arena.jobs(range(JOBS))
    idle = arena.worker("idle")
    idle.send_signal(signal.SIGSTOP)
    ids = arena.submit(jobs[: JOBS // 2])
    idle.kill()
    busy = arena.worker("busy")
    wait_for(lambda: _holds(arena, "busy"), "a batch to run")
    busy.send_signal(signal.SIGSTOP)
    ids += arena.submit(jobs[JOBS // 2 :])
    busy.kill()
    arena.worker("heir")
    return ids


def _server_restarts(arena: Arena) -> list[str]:
    """Twice: killed, and told to stop; the second time it stays away for longer than the lease."""
    for name in ("one", "two"):
        arena.start_worker(name)
    for name in ("one", "two"):
        wait_for(lambda name=name: arena.is_ready(name), f"worker {name}")  # type: ignore[misc]  # a default binds it now
    ids = arena.submit(arena.jobs(range(JOBS)))
    for end, away_s in ((arena.server.kill, 0.0), (arena.server.stop, LEASE_S + 1)):
        wait_for(lambda: arena.redis.hlen(keys.inflight(MODEL)) >= 4, "a batch to run")
        end()
        time.sleep(away_s)
        arena.server.start()
    return ids


def _lease_expires(arena: Arena) -> list[str]:
    """Stopped for longer than its lease and then let go: it is late with results that others have made."""
    late = arena.worker("late")
    ids = arena.submit(arena.jobs(range(JOBS // 2)))
    wait_for(lambda: _holds(arena, "late"), "a batch to run")
    late.send_signal(signal.SIGSTOP)
    taken = set(arena.in_flight())
    arena.worker("second")
    wait_for(lambda: not taken & set(arena.in_flight()), "its leases to be taken over")
    late.send_signal(signal.SIGCONT)
    wait_for(lambda: "lost" in arena.log("late").read_text(), "the late worker to hear that it is late")
    return ids + arena.submit(arena.jobs(range(JOBS // 2, JOBS)))


def _partition(arena: Arena, say: Say, wire: network.Network, seconds: float) -> list[str]:
    """One worker at the far end of a wire that is cut, one here that takes over; then it is mended."""
    url = arena.server.url.replace("127.0.0.1", wire.near_address)
    far = arena.worker("far", url, wire.prefix)
    ids = arena.submit(arena.jobs(range(JOBS // 2)))
    wait_for(lambda: _holds(arena, "far"), "a batch to run at the far end")
    taken = set(arena.in_flight())
    wire.cut()
    cut_at = time.monotonic()
    arena.worker("near")
    wait_for(lambda: not taken & set(arena.in_flight()), "its leases to be taken over")
    say(f"  partition: taken over {time.monotonic() - cut_at:.1f} s after the cut")
    # The partition itself; there is no condition to wait for.
    time.sleep(max(0.0, seconds - (time.monotonic() - cut_at)))
    wire.mend()
    mended_at = time.monotonic()
    with suppress(*OUTAGE):
        wait_for(lambda: arena.is_ready("far"), "the far worker to be back")
    say(f"  partition: the worker was back {time.monotonic() - mended_at:.1f} s after {seconds:g} s without a network")
    ids += arena.submit(arena.jobs(range(JOBS // 2, JOBS)))
    wait_for(lambda: _holds(arena, "far") or far.poll() is not None, "the far worker to take jobs again")
    return ids
