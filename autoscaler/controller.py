"""The controller: observe, decide, act, once every interval, until it is told to stop."""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from producer.contract import heartbeat, keys
from producer.contract.redis_errors import cannot_serve, trouble
from scheduler.queue_lengths import observe

from . import retries, roster
from .actions.decision import Decision, Drain, Hold, Start
from .device_deaths import DeviceDeaths
from .devices.placement import occupants
from .error_isolation import FailedRounds, IsolatedErrors
from .estimate_follower import EstimateFollower
from .journal import Journal
from .launchers.protocol import Launcher, LaunchError, Placement
from .leader import Leader, LeaderLease
from .observation import Observation
from .published_view import sizes_view
from .reconciler import Reconciler
from .server_watch import ServerWatch
from .sizing.demand import Demand
from .sizing.policy_registry import named

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.heartbeat import Heartbeat
    from producer.contract.published import PublishedSizes
    from producer.contract.settings import Settings
    from scheduler.queue_lengths import ModelQueues

    from .devices.device import Device, Probe
    from .devices.quarantine import Health
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
        self.excuse = excuse
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
        self._killed: dict[str, str] = {}
        """Why a worker was killed that has not ended yet."""
        self._device_deaths = DeviceDeaths()
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
            log.warning("the clock was set by %+.0f s: what was measured by it is forgotten", step_s)
            self.reconciler.clock_set(step_s)
            self.estimates.forget()
        now = self.clock()
        with self._errors.isolated("the state of Redis", "what is risky about it is not logged"):
            self._server.look(now)
        self._note_ended(now)
        if self.learns:
            with self._errors.isolated("'stoker retry'", "models are started when their back-off is over"):
                self._retry(now)
        beats = heartbeat.read_all(self.redis)
        seen = self._observe(now, beats)
        decisions = self.reconciler.decide(seen)
        if not self._carry_out(now, decisions):
            return
        self.journal.held(now, decisions)
        with self._errors.isolated("what is wanted", "'stoker explain' is not told"):
            mind = self.reconciler
            view = sizes_view(mind.policy, seen, mind.before, mind.memory, decisions)
            self.journal.wanted(view, self.patience_s)
            if self.learns:
                self._learn(now, view, beats)

    def _learn(self, now: float, view: PublishedSizes, beats: Sequence[Heartbeat]) -> None:
        """Measure the errors of estimates, made from the same published values as readers' estimates."""
        for name, wanted in view.models.items():
            with self._errors.isolated(f"{name}'s estimates", "what becomes of them is not learned"):
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
        with self._errors.isolated("forgotten workers", "they are not taken back"):
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
        self._note_device_deaths(now, devices)
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

    def _note_ended(self, now: float) -> None:
        for found in self.launcher.ended():
            why = self._killed.pop(found.name, "")
            ended = replace(found, cause=why, outside=True) if why else found
            last = heartbeat.parse([self.redis.get(keys.worker(ended.name))])
            # A worker whose engine failed has not served: its successors follow later each time.
            failing = any(beat.failing for beat in last)
            served = any(beat.ready_at is not None for beat in last) and not failing
            # Its process has ended and sends no heartbeat: do not wait until the last one expires.
            heartbeat.remove(self.redis, ended.name)
            if ended.outside or ended.asked:
                with self._errors.isolated(ended.name, "its jobs count a loss when their leases run out"):
                    self.excuse(ended.model, ended.name, False)
            else:
                self._device_deaths.add(now, ended)
            if not ended.asked:
                self.reconciler.failed(now, ended.model, 0.0 if failing else ended.lived_s, ended.cause, served)
                self.journal.lost(now, ended)

    def _note_device_deaths(self, now: float, devices: Sequence[Device]) -> None:
        for ended, fault in self._device_deaths.explained(now, devices, self.reconciler.health):
            log.info("%s probably ended because of its device, %s: its jobs count no loss", ended.name, fault)
            with self._errors.isolated(ended.name, "its jobs count a loss"):
                self.excuse(ended.model, ended.name, True)

    def _retry(self, now: float) -> None:
        for model in retries.take(self.redis):
            self.reconciler.retry(model)
            self.journal.retried(now, model)

    def _carry_out(self, now: float, decisions: Sequence[Decision]) -> bool:
        """Act on the decisions, each only while the lease is held.

        Observing may take longer than the lease lasts; another autoscaler may then have acted already. Each check
        renews the lease, so that it does not expire during the act.

        Returns:
            False when the lease was lost: the remaining decisions are dropped.
        """
        for decision in decisions:
            if isinstance(decision, Hold):
                continue
            if not self.leader.renew():
                log.warning(
                    "the lease ran out during this round (it lasts %g s): its decisions are dropped", self.leader.ttl_s
                )
                return False
            with self._errors.isolated(decision.model, "a decision could not be carried out"):
                self._act(now, decision)
        return True

    def _act(self, now: float, decision: Start | Drain) -> None:
        if not isinstance(decision, Start):
            self.launcher.drain(decision.worker, decision.grace_s)
            if decision.grace_s == 0:
                self._killed[decision.worker] = decision.reason
            self.journal.decided(now, decision, decision.worker)
            return
        try:
            where = Placement(decision.model, decision.device, decision.kind, decision.type, decision.uuid)
            name = self.launcher.start(where)
        except LaunchError as error:
            self.reconciler.failed(now, decision.model, 0.0, str(error))
            self.journal.failed(now, decision, str(error))
        else:
            self.journal.decided(now, decision, name)

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
