"""The controller: observe, decide, act, once every interval, until it is told to stop."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import redis as redis_py

from producer import heartbeat, keys
from scheduler.queues import observe

from . import roster
from .decide import decide
from .decisions import Decision, Hold, Start
from .demand import Traffic, assess, watch
from .devices import quarantine
from .journal import Journal
from .launchers.protocol import Launcher, LaunchError, Placement
from .leader import Leader
from .observation import Memory, Observation
from .placement import with_states

if TYPE_CHECKING:
    from redis import Redis

    from producer.settings import Settings

    from .devices import Probe

log = logging.getLogger(__name__)

MEASURES = ["jobs_per_s", "load_s"]
Unreachable = (redis_py.ConnectionError, redis_py.TimeoutError, redis_py.BusyLoadingError)


class Controller:
    """Keeps the fleet at the size that its queues ask for.

    It holds nothing that Redis, NVML and the launcher do not hold too: it may die at any moment, and
    stopping it leaves every worker serving.

    Args:
        sweep: called in every round of the leader, to hand back the jobs of lost workers.
        clock: Unix seconds.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        probe: Probe,
        launcher: Launcher,
        sweep: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.probe = probe
        self.launcher = launcher
        self.sweep = sweep
        self.clock = clock
        # Long enough for a few missed rounds, short enough that a successor is soon at work.
        self.patience_s = max(5.0, 5 * settings.scaling.interval_s)
        self.leader = Leader(redis, self.patience_s)
        self.journal = Journal(redis)
        self.host = socket.gethostname()
        self._memory = Memory()
        self._traffic: dict[str, Traffic] = {}
        self._hot: frozenset[str] = frozenset()
        self._leads: bool | None = None  # not known before the first round
        self._reachable = True
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="autoscaler")
        self._thread.start()

    def stop(self) -> None:
        """End after the present round and give up the lease. Workers are left alone."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def interrupt(self) -> None:
        """Let :meth:`run` return. Safe to call from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped. Survives a Redis that is away: says so once, and tries again every interval."""
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self.round()
            except Unreachable as error:
                self._lost_redis(error)
            except Exception:
                # One bad round, whatever its cause, must not leave the fleet without an autoscaler.
                log.exception("this round failed; the next one is in %g s", self.settings.scaling.interval_s)
            self._stopping.wait(max(0.0, self.settings.scaling.interval_s - (time.monotonic() - began)))
        self._resign()

    def round(self) -> None:
        """One round: nothing when another autoscaler leads, else observe, decide and act."""
        if not self._confirm():
            return
        now = self.clock()
        self._note_ended(now)
        seen = self._observe(now)
        decisions, self._memory = decide(seen, self._memory)
        for decision in decisions:
            self._act(now, decision)
        self.journal.held(now, decisions)
        if self.sweep is not None:
            self.sweep()

    def _confirm(self) -> bool:
        leads = self.leader.confirm()
        if not self._reachable:
            self._reachable = True
            log.info("Redis is back")
        if leads != self._leads:
            log.info("leading" if leads else f"waiting: {self.leader.holder()} leads")
            # What was remembered from an earlier reign says nothing about now.
            self._memory, self._traffic = Memory(), {}
        self._leads = leads
        return leads

    def _observe(self, now: float) -> Observation:
        beats = heartbeat.read_all(self.redis)
        workers = roster.call(beats, self.launcher.list(), self.host)
        devices, self._hot = quarantine(self.probe.devices(), self._hot)
        devices = with_states(devices, workers)
        self.journal.show(self.probe.source, devices, workers, self.patience_s)
        queues = observe(self.redis, self.settings)
        self._traffic = {name: watch(self._traffic.get(name), now, found) for name, found in queues.items()}
        demands = {
            name: assess(now, self.settings, found, self._traffic[name], workers, self._measured(name))
            for name, found in queues.items()
        }
        return Observation(now, self.settings, demands, devices, workers)

    def _measured(self, model: str) -> dict[str, float]:
        found = self.redis.hmget(keys.throughput(model), MEASURES)
        return {name: float(value) for name, value in zip(MEASURES, found, strict=True) if value}

    def _note_ended(self, now: float) -> None:
        for ended in self.launcher.ended():
            # Its process is gone, so it cannot speak again: do not wait until its last word expires.
            heartbeat.remove(self.redis, ended.name)
            if not ended.asked:
                self._memory = self._memory.failed(now, ended.model, ended.lived_s, ended.cause)
                self.journal.lost(now, ended)

    def _act(self, now: float, decision: Decision) -> None:
        if isinstance(decision, Hold):
            return
        if not isinstance(decision, Start):
            self.launcher.drain(decision.worker, decision.grace_s)
            self.journal.decided(now, decision, decision.worker)
            return
        try:
            name = self.launcher.start(Placement(decision.model, decision.device, decision.kind))
        except LaunchError as error:
            self._memory = self._memory.failed(now, decision.model, 0.0, str(error))
            self.journal.failed(now, decision, str(error))
        else:
            self.journal.decided(now, decision, name)

    def _lost_redis(self, error: Exception) -> None:
        if self._reachable:
            interval = self.settings.scaling.interval_s
            log.error(
                "Redis cannot be reached (%s): workers keep running; trying again every %g s. Check that it "
                "runs and that REDIS_URL or redis.url is right",
                error,
                interval,
            )
        self._reachable = False

    def _resign(self) -> None:
        if self._leads:
            try:
                self.leader.release()
            except Unreachable:
                log.info("Redis is away: the lease runs out by itself")
