"""The pool that feeds one engine: claims come in, batches run on the device, and each job gets one result.

Celery hands tasks to its pools one by one; this pool takes whole claims (``scheduler.lease.taker.Taker``), runs them
on the one thread that owns the device, and ends each job in the ledger: ``intake`` submits claimed jobs to the engine,
``settlement`` ends them. Monitors see every job as a task (``monitor``), and stock applications get its result as of
any task (``scheduler.results``).

A touch of Celery 5.7 that is not documented: ``worker.state.should_stop``.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from typing import Any

import redis
from celery.concurrency.base import BasePool
from celery.worker import state

from producer.contract.errors import EngineError, Preempted, StokerError
from scheduler.lease.queue import Claim
from scheduler.lease.taker import NoTaker
from scheduler.window.window import HoldLimits

from .assignment import Assignment
from .breaker import Breaker
from .device_thread import DeviceThread
from .engines.protocol import Batch, Outcome, OutputPiece, Prefilled
from .holding import Holding
from .intake import Intake
from .meter import LiveMeter
from .monitor import Monitor
from .settlement import Settlement

logger = logging.getLogger(__name__)

EXIT_HOPELESS = 6
"""The exit code of a worker whose engine fails, and whose breaker asks for another replica."""

LATE_S = 0.25
"""Interval in seconds at which time limits are checked and events published."""


class EnginePool(BasePool):  # type: ignore[misc]  # Celery has no types
    """One engine on one thread. ``num_processes`` is what Celery shows as concurrency."""

    signal_safe = False  # stopping waits for the device

    def __init__(self, *args: Any, app: Any, **kwargs: Any) -> None:
        super().__init__(*args, app=app, **kwargs)
        assignment: Assignment = app.assignment
        self.assignment, self.engine, self.ledger = assignment, assignment.engine, assignment.ledger
        self.device = DeviceThread(assignment.engine, assignment.model, assignment.device)
        self.meter = LiveMeter()
        self.breaker = Breaker()
        kind = assignment.device_type or assignment.device.partition(":")[0]
        self.holding = Holding(assignment.settings, assignment.model, kind)
        self.draining = False
        self._monitor = Monitor(app)
        self._settlement = Settlement(assignment, self.meter, self._monitor)
        self._intake = Intake(assignment, self._settlement, self.meter, self._monitor)
        self._hub: Any = None
        app.engine_pool = self

    # -- what the transport asks of the taker ------------------------------------------------------

    @property
    def capacity(self) -> int:
        """See ``scheduler.lease.taker.Taker``."""
        ready = self.device.ready_at is not None and not self.draining and not self.device.lost
        return self.breaker.capacity(time.monotonic(), self.ledger.count, self.engine.capacity) if ready else 0

    @property
    def slots(self) -> int:
        """See ``scheduler.lease.taker.Taker``."""
        return self.engine.slots

    def hold(self) -> HoldLimits:
        """See ``scheduler.lease.taker.Taker``."""
        return self.holding.hold(self.ledger.count)

    def take(self, claim: Claim) -> None:
        """See ``scheduler.lease.taker.Taker``."""
        self.holding.see(claim, self.ledger.count)
        if claim.jobs:
            self._intake.take(claim)

    # -- what the device reports -------------------------------------------------------------------

    def _settle(self) -> None:
        """Process the device's reports: output of streaming jobs, batches, and outcomes."""
        outcomes: list[Outcome] = []
        for report in self.device.reports():
            match report:
                case Outcome():
                    outcomes.append(report)
                case Batch():
                    self.holding.learn(report)
                case Prefilled():
                    self._look_again(self.ledger.prefilled(report.id, report.stall_s))
                case OutputPiece():
                    self._settlement.stream(report)
        self._judge(self._settlement.settle(outcomes))
        self._settlement.commit()

    def _judge(self, ended: list[tuple[str, StokerError | None]]) -> None:
        """Tell the breaker of outcomes, each with its tenant; end the worker when another replica should take its
        place."""
        told = [(tenant, error) for tenant, error in ended if error is None or isinstance(error, EngineError)]
        last = next((str(error) for _, error in reversed(told) if error is not None), "")
        now, before = time.monotonic(), self.breaker.why
        self.breaker.ended(now, [(tenant, error is not None) for tenant, error in told], last)
        if self.breaker.why and not before:
            logger.error("the breaker opens, and the replica gets one job at a time: %s", self.breaker.why)
        elif before and not self.breaker.why:
            logger.info("the breaker closes: the engine serves again")
        self._look_again(self.breaker.wait_s(now))
        if self.breaker.hopeless and not state.should_stop:
            logger.critical("the engine does not recover, and another replica has to take its place: %s", before)
            state.should_stop = EXIT_HOPELESS

    def _look_again(self, seconds: float) -> None:
        """Have the transport check for room again after some seconds."""
        if seconds > 0:
            self._hub.call_later(seconds, lambda: None)  # the transport checks whenever the loop wakes

    def lose(self, leases: list[str]) -> None:
        """Give up jobs whose leases were lost. Thread-safe: the thread that renews leases calls it."""
        for lease in leases:
            self.engine.cancel(lease)
        self.device.tell([Outcome(lease, error=Preempted("its lease was lost")) for lease in leases])

    @property
    def running_jobs(self) -> list[str]:
        """Ids of the jobs that the engine holds."""
        return [running.id for running in list(self._settlement.running.values())]

    # -- beginning and ending ----------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the device thread, which loads the model while Celery connects."""
        self.ledger.taker = self
        self.device.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Use the event loop that Celery passes, once and after every reconnect."""
        self._hub = loop
        self.device.watch(loop, self._settle)
        loop.call_repeatedly(LATE_S, self._settlement.end_overdue)
        loop.call_repeatedly(LATE_S, self._monitor.flush)
        if threading.current_thread() is threading.main_thread():
            # Python resumes an interrupted poll: without this a SIGTERM is noticed only at the next event, and another
            # batch may start before that.
            signal.set_wakeup_fd(self.device.ring_fd, warn_on_full_buffer=False)

    def on_stop(self) -> None:
        """Drain: finish the running jobs, give back those that have not begun, then free the device.

        In this order: no new jobs are taken (Celery has cancelled the consumers, and the capacity is 0); jobs that have
        not begun go back to their queues; results are written as jobs end; jobs that do not end in time go back under
        their leases; then the engine is closed. A second SIGTERM ends the wait. A worker that ends because of an error
        that nothing handles does not wait: it abandons its jobs, as when its engine is lost.
        """
        self.draining = True
        if isinstance(sys.exception(), Exception):  # Celery stops its worker while it handles the error
            self.device.lost = True
        self.engine.withdraw()
        deadline = time.monotonic() + self.assignment.settings.scaling.drain_s
        hurry = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: hurry.set())
        while self._settlement.running and time.monotonic() < deadline and not hurry.is_set() and not self.device.lost:
            try:
                # Celery's loop has ended; running its hub here keeps sockets and timers alive, so that results are
                # written as jobs end, and events and remote control work to the end.
                self._hub.run_once()
            except (redis.RedisError, OSError):
                hurry.wait(0.1)  # the ledger keeps results and writes them when Redis is back
            except Exception:
                logger.critical("the jobs cannot be finished", exc_info=True)
                self.device.lost = True
        self._leave()

    def on_terminate(self) -> None:
        """Cold shutdown: give all jobs back now."""
        self.draining = True
        self._leave()

    def _leave(self) -> None:
        left = list(self._settlement.running)
        if left:
            logger.warning("%s %d unfinished jobs", "abandoning" if self.device.lost else "giving back", len(left))
        for lease in left:
            self._settlement.give_up(lease)
        if self.device.lost:
            # Abandoned rather than given back: one of them may be the cause, so each counts a loss.
            self.ledger.abandon(left)
        self.ledger.release(self.ledger.held)
        self.ledger.taker = NoTaker()
        with contextlib.suppress(redis.RedisError):  # the leases then expire
            self.ledger.flush(urgent=True)  # released leases are no longer renewed
        self._monitor.flush()
        self.device.stop()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing to do: ``Running.terminate`` knows the job."""

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": "workers.pool:EnginePool",
            "max-concurrency": self.limit,
            "model": self.assignment.model,
            "device": self.assignment.device,
        }
