"""The actuator: carries the decisions of a round out through the launcher, and notes the workers that ended since."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from producer.contract import heartbeat, keys

from .actions.decision import Decision, Drain, Hold, Start
from .devices.device_deaths import DeviceDeaths
from .error_isolation import IsolatedErrors
from .launchers.protocol import LaunchError, Placement

if TYPE_CHECKING:
    from redis import Redis

    from .devices.device import Device
    from .journal import Journal
    from .launchers.protocol import Launcher
    from .leader import LeaderLease
    from .reconciler import Reconciler

log = logging.getLogger(__name__)


class Actuator:
    """Starts and drains workers under the leader lease, and passes failures on to the reconciler and the journal.

    Args:
        errors: isolates an error of one decision from the others.
        excuse: called with the model and the name of a worker that died of an outside cause, so that its jobs count no
            loss, and whether losses may have been counted already.
    """

    def __init__(
        self,
        redis: Redis,
        launcher: Launcher,
        leader: LeaderLease,
        journal: Journal,
        reconciler: Reconciler,
        *,
        errors: IsolatedErrors,
        excuse: Callable[[str, str, bool], None],
    ) -> None:
        self._redis = redis
        self._launcher = launcher
        self._leader = leader
        self._journal = journal
        self._reconciler = reconciler
        self._errors = errors
        self._excuse = excuse
        self._killed: dict[str, str] = {}
        """The reasons of killed workers that have not ended yet, by worker."""
        self._device_deaths = DeviceDeaths()

    def note_ended(self, now: float) -> None:
        """Record the workers whose processes have ended and the causes, and excuse their jobs where due."""
        for found in self._launcher.ended():
            why = self._killed.pop(found.name, "")
            ended = replace(found, cause=why, outside=True) if why else found
            last = heartbeat.parse([self._redis.get(keys.worker(ended.name))])
            # A worker whose engine failed counts as a failed start: the back-off of its model grows.
            failing = any(beat.failing for beat in last)
            served = any(beat.ready_at is not None for beat in last) and not failing
            # The process has ended: its last heartbeat would otherwise show it until the heartbeat expires.
            heartbeat.remove(self._redis, ended.name)
            if ended.outside or ended.asked:
                with self._errors.isolated(ended.name, "its jobs count a loss when their leases run out"):
                    self._excuse(ended.model, ended.name, False)
            else:
                self._device_deaths.add(now, ended)
            if not ended.asked:
                self._reconciler.failed(now, ended.model, 0.0 if failing else ended.lived_s, ended.cause, served)
                self._journal.lost(now, ended)

    def note_device_deaths(self, now: float, devices: Sequence[Device]) -> None:
        """Excuse the jobs and the models of workers that ended because of a fault of their device, which may show only
        afterwards: the jobs count no loss, and the model no failed start."""
        for ended, fault in self._device_deaths.explained(now, devices, self._reconciler.health):
            log.info("%s probably ended because of its device, %s: its jobs count no loss", ended.name, fault)
            self._reconciler.excused(ended.model)
            with self._errors.isolated(ended.name, "its jobs count a loss"):
                self._excuse(ended.model, ended.name, True)

    def carry_out(self, now: float, decisions: Sequence[Decision]) -> bool:
        """Act on the decisions, each only while the lease is held.

        Observing may take longer than the lease lasts; another autoscaler may then have acted already. Each check
        renews the lease, so that it does not expire during the act.

        Returns:
            False when the lease was lost: the remaining decisions are dropped.
        """
        for decision in decisions:
            if isinstance(decision, Hold):
                continue
            if not self._leader.renew():
                log.warning(
                    "the lease ran out during this round (it lasts %g s): its decisions are dropped", self._leader.ttl_s
                )
                return False
            with self._errors.isolated(decision.model, "a decision could not be carried out"):
                self._act(now, decision)
        return True

    def _act(self, now: float, decision: Start | Drain) -> None:
        if not isinstance(decision, Start):
            self._launcher.drain(decision.worker, decision.grace_s)
            if decision.grace_s == 0:
                self._killed[decision.worker] = decision.reason
            self._journal.decided(now, decision, decision.worker)
            return
        try:
            where = Placement(decision.model, decision.device, decision.kind, decision.type, decision.uuid)
            name = self._launcher.start(where)
        except LaunchError as error:
            self._reconciler.failed(now, decision.model, 0.0, str(error))
            self._journal.failed(now, decision, str(error))
        else:
            self._journal.decided(now, decision, name)
