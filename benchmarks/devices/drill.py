"""The drill: a real autoscaler and its workers on made-up GPUs that overheat, fall off the bus and err, one by one."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from autoscaler.launchers import records
from benchmarks.bars import Bar
from benchmarks.chaos.arena import MODEL, OUTAGE, Arena, wait_for
from producer.contract import keys
from producer.contract.published import JournalEntry

from .fake_nvml import LOST, UNKNOWN, FakeGpus

GPUS = 3
INTERVAL_S = 0.2
HOLD_S, SEVERE_HOLD_S = 1.0, 5.0
TABLES = f"""
[scaling]
interval_s = {INTERVAL_S}
drain_s = 3
[quarantine]
hold_s = {HOLD_S}
severe_hold_s = {SEVERE_HOLD_S}
"""
SETTLED_S = 3.0
"""A worker that is told to drain takes nothing new after so long: its signal, its loop, our looking."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Findings:
    """What happened. ``made`` counts the faults of each GPU; ``looks`` is by fault."""

    made: dict[str, int] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    events: Sequence[JournalEntry] = ()
    claims: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """By lease: the device that the job was placed on, and when that was first seen."""
    unanswered: int = 0
    speeds: Mapping[str, float] = field(default_factory=dict)
    """What the workers measured, by the name of the measure."""

    def out(self) -> list[tuple[str, float, float]]:
        """Each quarantine: the device, and from when to when it lasted."""
        found = []
        for nth, one in enumerate(self.events):
            if one.action == "quarantine":
                later = (e.at for e in self.events[nth:] if e.action == "release" and e.device == one.device)
                found.append((one.device, one.at, next(later, float("inf"))))
        return found

    def starts_there(self) -> int:
        """Workers that were started on a device in quarantine."""
        starts = [one for one in self.events if one.action == "start"]
        return sum(
            one.device == device and since <= one.at < until for one in starts for device, since, until in self.out()
        )

    def jobs_there(self) -> int:
        """Jobs that were placed on a device in quarantine, when its worker had been told to go."""
        return sum(
            where == device and since + SETTLED_S < at < until
            for where, at in self.claims.values()
            for device, since, until in self.out()
        )

    def flaps(self) -> int:
        """Quarantines beyond the faults that were made, and devices that were taken back more often than put out."""
        extra = 0
        for device, count in self.made.items():
            acts = [one.action for one in self.events if one.device == device]
            extra += abs(acts.count("quarantine") - count) + max(0, acts.count("release") - count)
        return extra

    def holds(self, device: str) -> list[float]:
        """How long a device was held at least, each time."""
        return [one.inputs["hold_s"] for one in self.events if (one.action, one.device) == ("quarantine", device)]


class Load:
    """Jobs all the time, and where each was placed, from a thread of its own."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._where: dict[str, str] = {}
        self.ids: list[str] = []
        self.claims: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(0.04):
            with suppress(*OUTAGE):
                self.ids += self._arena.submit(self._arena.jobs(range(number, number + 2)))
                number += 2
                for lease in self._arena.in_flight():
                    if lease not in self.claims and (device := self._device(lease)):
                        self.claims[lease] = device, time.time()

    def _device(self, lease: str) -> str:
        """Where the worker that holds a lease runs. A lease is ``queue|worker.process.claim:number``."""
        worker = lease.rpartition("|")[2].rsplit(".", 2)[0]
        if worker not in self._where:
            self._where |= {one.name: one.device for one in records.read(self._arena.run_dir)}
        return self._where.get(worker, "")


class Drill:
    """Makes faults on the GPUs of an arena, one by one, and notes what comes of each."""

    def __init__(self, arena: Arena, gpus: FakeGpus, say: Say) -> None:
        self.arena, self.gpus, self.say = arena, gpus, say
        self.findings = Findings()
        self._reigns = 0
        self._autoscaler = self._reign()

    def fault(self, what: str, gpu: int, make: Callable[[], None]) -> JournalEntry:
        """Make a fault, and wait until the GPU is out and its worker gone."""
        device = f"cuda:{gpu}"
        before = self._count("quarantine", device)
        make()
        made_at = time.time()
        self.findings.made[device] = self.findings.made.get(device, 0) + 1
        wait_for(lambda: self._count("quarantine", device) > before, f"quarantine of {device}, {what}: {self._log()}")
        event = [one for one in self.events() if (one.action, one.device) == ("quarantine", device)][-1]
        # The look that found it comes right after ``at``.
        looks = 1 + sum(made_at < at <= event.at for at in self.gpus.looks(gpu))
        self.findings.looks[what] = looks
        self.say(f"   {device} {what}: out at look {looks}, {event.at - made_at:+.2f} s: {event.reason}")
        wait_for(lambda: not self.workers(device), f"{device} to be left: {self._log()}")
        return event

    def back(self, gpu: int) -> None:
        """Wait until a GPU is taken back and works again."""
        device = f"cuda:{gpu}"
        count = self.findings.made[device]
        wait_for(lambda: self._count("release", device) == count, f"release of {device}: {self._log()}")
        event = [one for one in self.events() if (one.action, one.device) == ("release", device)][-1]
        self.say(f"   {device} {event.reason}")
        wait_for(lambda: self.workers(device), f"a worker on {device}: {self._log()}")

    def stay(self, gpu: int, looks: int) -> None:
        """Leave a GPU as it is until it was looked at so often."""
        before = len(self.gpus.looks(gpu))
        wait_for(lambda: len(self.gpus.looks(gpu)) >= before + looks, f"{looks} looks at {gpu}: {self._log()}")

    def succeed(self) -> None:
        """Kill the autoscaler, and put another in its place."""
        self._autoscaler.kill()
        self._autoscaler.wait()
        self.arena.redis.delete(keys.leader())  # instead of waiting until the dead one's lease runs out
        looks = len(self.gpus.looks(0))
        self._autoscaler = self._reign()
        wait_for(lambda: len(self.gpus.looks(0)) > looks + 2, f"the successor: {self._log()}")

    def workers(self, device: str) -> list[str]:
        """Workers that live on a device."""
        return [one.name for one in records.read_all(self.arena.run_dir) if one.device == device]

    def all_work(self) -> bool:
        """Whether every GPU has a worker that is ready."""
        names = [name for n in range(GPUS) for name in self.workers(f"cuda:{n}")]
        return len(names) == GPUS and all(map(self.arena.is_ready, names))

    def events(self) -> list[JournalEntry]:
        """The autoscaler's journal. Each entry's time was taken before its round looked."""
        return [JournalEntry.of_fields(fields) for _, fields in self.arena.redis.xrange(keys.decisions())]

    def _count(self, action: str, device: str) -> int:
        return sum((one.action, one.device) == (action, device) for one in self.events())

    def _reign(self) -> subprocess.Popen[bytes]:
        self._reigns += 1
        fake = {name: value for name, value in self.gpus.environment().items() if os.environ.get(name) != value}
        prefix = ("env", "-u", "CUDA_VISIBLE_DEVICES", *(f"{name}={value}" for name, value in fake.items()))
        return self.arena.spawn(f"autoscaler-{self._reigns}", "autoscaler", prefix=prefix)

    def _log(self) -> str:
        return f"see {self.arena.log(f'autoscaler-{self._reigns}')}"


def run(folder: Path, say: Say, *, short: bool = False) -> tuple[list[Bar], Findings]:
    """Play the drill. Returns its figures, and what happened.

    Args:
        short: only the first fault of each kind that a GPU dies of: heat, the bus, an XID error.
    """
    options = "delay_s = 0.05"
    with Arena(folder / "fleet", lease_s=2, options=options, replicas=GPUS, max_losses=9, tables=TABLES) as arena:
        gpus = FakeGpus(folder / "nvml")
        drill = Drill(arena, gpus, say)
        wait_for(drill.all_work, f"a worker on each GPU: see {arena.log('autoscaler-1')}")
        with Load(arena) as load:
            _play(drill, gpus, short=short)
        found = drill.findings
        found.unanswered = _unanswered(arena, load.ids)
        found.events, found.claims = drill.events(), load.claims
        measured = arena.redis.hgetall(keys.throughput(MODEL))
        found.speeds = {name.decode(): float(value) for name, value in measured.items()}
        say(f"   {len(load.ids)} jobs meanwhile, {found.unanswered} of them without an answer")
        return figures(found), found


def _play(drill: Drill, gpus: FakeGpus, *, short: bool) -> None:
    # The XID error first: the GPU is out the longest for it.
    drill.fault("an XID error", 2, lambda: gpus.xid(2, 79))
    drill.succeed()
    drill.fault("overheating", 0, lambda: gpus.set(0, temperature=91))
    gpus.set(0, temperature=80)
    drill.stay(0, 20)  # neither hot nor cool: it stays out
    gpus.set(0, temperature=60)
    drill.back(0)
    drill.fault("off the bus", 1, lambda: gpus.set(1, error=LOST))
    drill.stay(1, 20)
    gpus.set(1, error=0)
    drill.back(1)
    drill.back(2)
    if short:
        return
    drill.fault("overheating again", 0, lambda: gpus.set(0, temperature=86))
    gpus.set(0, temperature=74)
    drill.back(0)
    drill.fault("unreadable", 1, lambda: gpus.set(1, error=UNKNOWN))
    gpus.set(1, error=0)
    drill.fault("memory errors", 2, lambda: gpus.set(2, ecc=2))
    gpus.set(2, ecc=0)  # as after a reset
    drill.back(1)
    drill.back(2)
    for n in range(20):  # a program's own faults, and heat below the limit: of no concern
        gpus.set(n % GPUS, temperature=84)
        gpus.xid(n % GPUS, 13 if n % 2 else 31)
        drill.stay(n % GPUS, 1)
    wait_for(drill.all_work, "a worker on each GPU at the end")


def _unanswered(arena: Arena, ids: Sequence[str]) -> int:
    def left() -> list[str]:
        done = arena.redis.mget([keys.result(one) for one in ids])
        return [one for one, result in zip(ids, done, strict=True) if result is None]

    with suppress(TimeoutError):
        wait_for(lambda: not left(), "the last answers", 60.0)
    return len(left())


def figures(found: Findings) -> list[Bar]:
    """The figures and their bars."""
    bars = [Bar(f"looks until quarantined: {what}", looks, 2) for what, looks in found.looks.items()]
    bars += [
        Bar("workers started on faulty devices", found.starts_there(), 0),
        Bar("jobs placed on faulty devices", found.jobs_there(), 0),
        Bar("flaps", found.flaps(), 0),
        Bar("jobs without an answer", found.unanswered, 0),
    ]
    if len(holds := found.holds("cuda:0")) > 1:
        bars.append(Bar("hold the second time, times the first", holds[1] / holds[0], 2, "higher"))
    return bars
