"""The controller: observe, decide, act, once every interval, until it is told to stop."""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from producer.contract import heartbeat, keys
from producer.contract.server.redis_errors import cannot_serve, trouble
from scheduler.queue_lengths import observe

from . import retries, roster
from .actuator import Actuator
from .devices.placement import occupants
from .error_isolation import FailedRounds, IsolatedErrors
from .estimates.estimate_follower import EstimateFollower
from .journal import Journal
from .leader import Leader, LeaderLease
from .observation import Observation
from .published_view import sizes_view
from .reconciler import Reconciler
from .sizing.demand import Demand
from .sizing.policy_registry import named
from .upkeep.server_watch import ServerWatch

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings
    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import PublishedSizes
    from scheduler.queue_lengths import ModelQueues

    from .devices.device import Probe
    from .devices.quarantine import Health
    from .launchers.protocol import Launcher
    from .roster import Worker
    from .sizing.policy_registry import Policy

log = logging.getLogger(__name__)


class Controller:
    """Keeps the fleet at the size that its queues ask for.

    All its state can be restored from Redis, NVML and the launcher: it may be killed at any moment. When it stops,
    the workers go on serving.

    Args:
        sweep: called first in every round of the leader, to return the jobs of lost workers to their queues.
        excuse: called with the model and the name of a worker that died of an outside cause, so that its jobs count no
            loss, and whether losses may have been counted already.
        clock: Unix seconds.
        reread: returns the current settings, as a new object when they changed.
        policy: the scaling policy; by default the one that the settings name.
        leader: the lease; by default the fleet's leader lease.
        journal: records decisions and publishes the view of the fleet; by default in Redis.
        stepped_s: returns by how many seconds ``clock`` was set since the last call.
        expect: called before each probe with the devices that managed workers hold, as UUID and name.
        learns: whether to measure the errors of estimates and write them to Redis.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        probe: Probe,
        launcher: Launcher,
        sweep: Callable[[Settings], None] | None = None,
        clock: Callable[[], float] = time.time,
        reread: Callable[[], Settings] | None = None,
        policy: Policy | None = None,
        leader: LeaderLease | None = None,
        journal: Journal | None = None,
        stepped_s: Callable[[], float] = lambda: 0.0,
        expect: Callable[[Mapping[str, str]], None] = lambda _: None,
        *,
        learns: bool = True,
        excuse: Callable[[str, str, bool], None] = lambda *_: None,
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.probe = probe
        self.launcher = launcher
        self.sweep = sweep
        self.clock = clock
        self.reread = reread
        self.stepped_s = stepped_s
        self.expect = expect
        self.leader: LeaderLease = leader or Leader(redis, self.patience_s)
        self.journal = journal or Journal(redis)
        self.host = socket.gethostname()
        self.policy = policy
        self.reconciler = Reconciler(policy or named(settings.scaling.policy))
        self.learns = learns
        self.estimates = EstimateFollower(redis)
        self._server = ServerWatch(redis)
        self._leads: bool | None = None  # not known before the first round
        self._reachable = True
        self._errors = IsolatedErrors(log)
        self._failed_rounds = FailedRounds(log)
        self._actuator = Actuator(
            redis, launcher, self.leader, self.journal, self.reconciler, errors=self._errors, excuse=excuse
        )
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def patience_s(self) -> float:
        """Seconds after which the lease and what is published expire: long enough to miss a few rounds, short enough
        for a successor to take over soon."""
        return max(5.0, 5 * self.settings.scaling.interval_s)

    def start(self) -> None:
        """Run in a new thread."""
        self._thread = threading.Thread(target=self.run, name="autoscaler")
        self._thread.start()

    def stop(self) -> None:
        """End after the current round and give up the lease. Workers keep running."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def interrupt(self) -> None:
        """Let :meth:`run` return. Safe to call from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Do rounds until stopped. While Redis cannot serve, logs it once and tries again every interval."""
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self.round()
            except Exception as error:
                # A failed round, whatever its cause, must not leave the fleet without an autoscaler.
                if cannot_serve(error):
                    self._lost_redis(error)
                else:
                    self._note_failed(error)
            else:
                self._failed_rounds.succeeded()
            self._stopping.wait(max(0.0, self.settings.scaling.interval_s - (time.monotonic() - began)))
        self._resign()

    def _note_failed(self, error: Exception) -> None:
        told = self._failed_rounds.failed(error, self.settings.scaling.interval_s)
        if told and self._leads is not False:
            with self._errors.isolated("the failed rounds", "'stoker status' is not told"), suppress(RedisError):
                self.journal.failing(self.clock(), told, self.patience_s)

    def round(self) -> None:
        """Sweep, observe, decide and act; nothing when another autoscaler leads."""
        if self.reread is not None:
            self.settings = self.reread()
            self.leader.ttl_s = self.patience_s
            self.reconciler.policy = self.policy or named(self.settings.scaling.policy)
        if not self._confirm():
            return
        if self.sweep is not None:
            # First and isolated, so that no other error keeps lost jobs from being returned to their queues.
            with self._errors.isolated("the sweep", "jobs of lost workers are not taken back"):
                self.sweep(self.settings)
        if step_s := self.stepped_s():
            log.warning("the clock was set by %+.0f s: measurements by it are dropped", step_s)
            self.reconciler.clock_set(step_s)
            self.estimates.forget()
        now = self.clock()
        with self._errors.isolated("the state of Redis", "its risky settings are not logged"):
            self._server.look(now)
        self._actuator.note_ended(now)
        if self.learns:
            with self._errors.isolated("'stoker retry'", "models are started when their back-off is over"):
                self._retry(now)
        beats = heartbeat.read_all(self.redis)
        seen = self._observe(now, beats)
        decisions = self.reconciler.decide(seen)
        if not self._actuator.carry_out(now, decisions):
            return
        self.journal.held(now, decisions)
        with self._errors.isolated("the sizes of models", "'stoker explain' shows older ones"):
            own = self.reconciler
            view = sizes_view(own.policy, seen, own.before, own.memory, decisions)
            self.journal.wanted(view, self.patience_s)
            if self.learns:
                self._learn(now, view, beats)

    def _learn(self, now: float, view: PublishedSizes, beats: Sequence[Heartbeat]) -> None:
        """Measure the errors of estimates, made from the same published values as readers' estimates."""
        for name, wanted in view.models.items():
            with self._errors.isolated(f"the estimates of {name}", "their errors are not learned"):
                self.estimates.look(now, self.settings, wanted, beats)

    def _confirm(self) -> bool:
        leads = self.leader.confirm()
        if not self._reachable:
            self._reachable = True
            log.info("Redis serves again")
        if leads != self._leads:
            log.info("leading" if leads else f"waiting: {self.leader.holder()} leads")
            self.reconciler.forget(self._recalled() if leads else {})
            self.estimates.forget()
        self._leads = leads
        return leads

    def _recalled(self) -> dict[str, Health]:
        with self._errors.isolated("the quarantine", "devices that were out for a fault may be used at once"):
            return self.journal.recall()
        return {}

    def _observe(self, now: float, beats: Sequence[Heartbeat]) -> Observation:
        with self._errors.isolated("workers without a record", "they are not stopped when they are no longer needed"):
            self.launcher.adopt(beats)
        workers = roster.list_workers(beats, self.launcher.list(), self.host)
        with self._errors.isolated("released devices", "they stay in quarantine"):
            self.reconciler.pardon(self.journal.pardons())
        self.expect({one.device_uuid: one.device for one in workers if one.managed and one.device_uuid})
        probed = self.probe.devices()
        workers = roster.located(workers, probed)
        devices = self.reconciler.devices(now, self.settings, probed, workers)
        with self._errors.isolated("the quarantine", "a successor will not know of it"):
            self.journal.health(now, devices, self.reconciler.health)
        self._actuator.note_device_deaths(now, devices)
        held = occupants(workers, devices, self.settings.models)
        self.journal.ignored(probed, self.settings.quarantine)
        self.journal.show(now, self.probe.source, devices, held, self.patience_s)
        return Observation(now, self.settings, self._demands(now, workers), devices, workers)

    def _demands(self, now: float, workers: Sequence[Worker]) -> dict[str, Demand]:
        """The demand of each model. A model whose demand cannot be assessed is left out and keeps its replicas."""
        demands = {}
        for name, found in self._queues().items():
            with self._errors.isolated(f"{name}'s demand", "it cannot be told: its replicas stay as they are"):
                demands[name] = self.reconciler.demand(now, self.settings, found, workers, self._measured(name))
        return demands

    def _queues(self) -> dict[str, ModelQueues]:
        """The queues of each model that can be read: all in one round trip, or model by model when that fails."""
        found: dict[str, ModelQueues] = {}
        with self._errors.isolated("all models' queues", "read one by one"):
            return observe(self.redis, self.settings)
        for name, model in self.settings.models.items():
            alone = self.settings.model_copy(update={"models": {name: model}})
            with self._errors.isolated(f"{name}'s queues", "they cannot be read: its replicas stay as they are"):
                found |= observe(self.redis, alone)
        return found

    def _measured(self, model: str) -> dict[str, float]:
        found = self.redis.hgetall(keys.throughput(model))
        measured = {heartbeat.text(name): float(value) for name, value in found.items()}
        return {name: value for name, value in measured.items() if math.isfinite(value)}

    def _retry(self, now: float) -> None:
        for model in retries.take(self.redis):
            self.reconciler.retry(model)
            self.journal.retried(now, model)

    def _lost_redis(self, error: Exception) -> None:
        if self._reachable:
            interval = self.settings.scaling.interval_s
            cause = trouble(error, self.settings)
            log.error("%s. Workers keep running; trying again every %g s", cause, interval)
        self._reachable = False

    def _resign(self) -> None:
        if self._leads:
            try:
                self.leader.release()
            except RedisError as error:
                if not cannot_serve(error):
                    raise
                log.info("Redis cannot serve now: the lease runs out by itself")
