"""GPUs that NVML tells oddly of, or not at all: workers of the healthy ones go on, and none is started twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.launchers import records
from benchmarks.bars import Bar
from benchmarks.chaos.arena import Arena, wait_for
from benchmarks.devices.fake_nvml import ITSELF, NO_PERMISSION, UNKNOWN, VERSION_MISMATCH, FakeGpus
from producer.contract import keys
from producer.contract.published import JournalEntry, PublishedNode

from .stage import Say, added, await_rounds

GPUS = 4
ROUNDS = 15
"""Rounds of the autoscaler for which each oddity lasts: three times as many as a decision about a device takes."""
HOT_C = 95
TOLD_WITHIN_S = 10.0
TABLES = "[scaling]\ninterval_s = 0.2\ndrain_s = 3\n[quarantine]\nhold_s = 1\nsevere_hold_s = 2\n"
BIG = '[models.big]\nengine = "echo"\nmemory_gb = 50\nmax_replicas = 1\n'


@dataclass(slots=True)
class Found:
    """What the autoscaler did to workers that it should have left alone."""

    drained: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    told_after_s: dict[str, float] = field(default_factory=dict)


class Machine:
    """Four GPUs with a worker each."""

    def __init__(self, arena: Arena, gpus: FakeGpus, say: Say) -> None:
        self.arena, self.gpus, self.say, self.found = arena, gpus, say, Found()
        self._reigns = 0
        self.succeed()
        wait_for(self._all_work, f"a worker on each GPU: see {arena.log('autoscaler-1')}")

    def succeed(self) -> None:
        """Put an autoscaler in the place of the last one, which is killed."""
        if self._reigns:
            self.arena.processes[-1].kill()
            self.arena.processes[-1].wait()
            self.arena.redis.delete(keys.leader())  # instead of waiting until the dead one's lease expires
        self._reigns += 1
        self.arena.spawn(f"autoscaler-{self._reigns}", "autoscaler", prefix=added(self.gpus.environment()))

    def oddity(self, what: str, make: Callable[[], None], end: Callable[[], None], faulty: int | None = None) -> None:
        """Let the GPUs be odd for some rounds; note each drain and each superfluous start.

        Args:
            faulty: the GPU whose worker may be drained.
        """
        before = len(self.events())
        device = None if faulty is None else self._device(faulty)
        make()
        await_rounds(self.arena.redis, ROUNDS, f": see {self._log()}")
        if device is not None:
            wait_for(lambda: self._is_out(faulty), f"{device} to be out, {what}: see {self._log()}")
        end()
        wait_for(self._all_work, f"a worker on each GPU after {what}: see {self._log()}")
        made = self.events()[before:]
        drained = [one for one in made if one.action == "drain" and one.device != device]
        ended = sum(one.action in ("drain", "lost") for one in made)
        started = [one for one in made if one.action == "start"]
        self.found.drained += [f"{what}: {one.device}: {one.reason}" for one in drained]
        self.found.twice += [f"{what}: {one.device}: {one.reason}" for one in started[ended:]]
        self.say(f"   {what}: {len(drained)} healthy workers drained, {max(0, len(started) - ended)} started twice")

    def hang(self, what: str, make: Callable[[], None], end: Callable[[], None], faulty: int | None = None) -> None:
        """A look that does not return: also note when it was told."""

        def begin() -> None:
            wait_for(lambda: not self._trouble(), f"word of earlier troubles to end: see {self._log()}")
            make()
            began = time.monotonic()
            wait_for(self._trouble, f"word of {what}: see {self._log()}")
            self.found.told_after_s[what] = time.monotonic() - began

        self.oddity(what, begin, end, faulty)

    def events(self) -> list[JournalEntry]:
        """The autoscaler's journal."""
        return [JournalEntry.of_fields(fields) for _, fields in self.arena.redis.xrange(keys.decisions())]

    def _node(self) -> PublishedNode | None:
        return PublishedNode.parse(self.arena.redis.get(keys.devices()))

    def _trouble(self) -> str:
        node = self._node()
        return "" if node is None else node.trouble or node.failing

    def _device(self, gpu: int) -> str:
        """What the autoscaler calls a GPU, which may be called otherwise after a start in another order."""

        def found() -> str:
            node = self._node()
            known = () if node is None else node.devices
            return next((device.id for device in known if device.uuid.startswith(f"GPU-{gpu}")), "")

        return wait_for(found, f"GPU {gpu} to be told of: see {self._log()}")

    def _is_out(self, gpu: int | None) -> bool:  # by the identity that no order changes
        return all(not one.device_uuid.startswith(f"GPU-{gpu}") for one in records.read_all(self.arena.run_dir))

    def _all_work(self) -> bool:
        living = [one for one in records.read_all(self.arena.run_dir) if one.role == "worker"]
        return len(living) == GPUS and all(self.arena.is_ready(one.name) for one in living)

    def _log(self) -> str:
        return str(self.arena.log(f"autoscaler-{self._reigns}"))


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Play every oddity on one machine, then slow answers to two autoscalers."""
    with Arena(folder / "fleet", lease_s=2, options="delay_s = 0", replicas=GPUS, tables=TABLES) as arena:
        machine = Machine(arena, FakeGpus(folder / "nvml", GPUS), say)
        _play(machine, machine.gpus)
    found = machine.found
    if not quick:
        found.twice += _two_autoscalers(folder, say)
    for text in (*found.drained, *found.twice):
        say(f"   WRONG: {text}")
    slowest = max(found.told_after_s.values(), default=None)
    return [
        Bar("healthy workers drained for another's fault", len(found.drained), 0),
        Bar("double starts on odd devices", len(found.twice), 0),
        Bar("seconds until a look that hangs is told", slowest, TOLD_WITHIN_S),
    ]


def _play(machine: Machine, gpus: FakeGpus) -> None:
    def all_of_them(measures: Mapping[str, int]) -> None:
        for gpu in range(GPUS):
            gpus.set(gpu, **measures)

    for question in ("name", "temperature", "utilisation", "ecc", "processes"):
        machine.oddity(
            f"one question fails, {question}",
            lambda question=question: gpus.set(2, **{f"fail_{question}": UNKNOWN}),  # type: ignore[misc]  # bound at once
            lambda question=question: gpus.set(2, **{f"fail_{question}": 0}),  # type: ignore[misc]
        )
    machine.oddity(
        "no permission",
        lambda: gpus.set(3, mute=1, fail_memory=NO_PERMISSION),
        lambda: gpus.set(3, mute=0, fail_memory=0),
    )
    machine.oddity("all fail alike", lambda: all_of_them({"error": UNKNOWN}), lambda: all_of_them({"error": 0}))
    machine.oddity(
        "driver and library differ", lambda: gpus.set(ITSELF, init=VERSION_MISMATCH), lambda: gpus.set(ITSELF, init=0)
    )
    machine.hang("a look at a GPU hangs", lambda: gpus.set(1, hang=1), lambda: gpus.set(1, hang=0), faulty=1)
    machine.hang("the library hangs", lambda: gpus.set(ITSELF, hang=1), lambda: gpus.set(ITSELF, hang=0))
    machine.oddity("a GPU leaves the enumeration", lambda: gpus.set(1, gone=1), lambda: gpus.set(1, gone=0), faulty=1)

    def shuffle() -> None:
        for gpu in range(GPUS):
            gpus.set(gpu, place=GPUS - gpu)

    machine.oddity("the order is shuffled", shuffle, lambda: None)
    machine.oddity("a successor sees another order", machine.succeed, lambda: None)
    machine.oddity(
        "a GPU is hot in that order",
        lambda: gpus.set(3, temperature=HOT_C),
        lambda: gpus.set(3, temperature=45),
        faulty=3,
    )


def _two_autoscalers(folder: Path, say: Say) -> list[str]:
    """Starts beyond the one of a model that may have one replica, by two autoscalers whose looks take seconds."""
    with Arena(folder / "two", lease_s=2, options="delay_s = 0", tables=TABLES + BIG) as arena:
        gpus = FakeGpus(folder / "slow", 1)
        gpus.set(ITSELF, delay=1000)
        for name in ("first", "second"):
            arena.spawn(name, "autoscaler", prefix=added(gpus.environment()))
        job = arena.client.submit("big", "x")
        arena.client.result(job, timeout=120)
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 30, "thirty seconds of two autoscalers")
        events = [JournalEntry.of_fields(fields) for _, fields in arena.redis.xrange(keys.decisions())]
        started = [one for one in events if (one.action, one.model) == ("start", "big")]
        ended = sum(one.action in ("drain", "lost") and one.model == "big" for one in events)
    say(f"   two autoscalers, a second for each call of NVML: {len(started)} starts of one replica, {ended} ends")
    return [f"two autoscalers: {one.device}: {one.reason}" for one in started[1 + ended :]]
