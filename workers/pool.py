"""The Celery pool that feeds one engine: individual messages in, batches on the device, individual results out.

Celery hands over each task by itself (``on_apply``). The pool gives its inputs to the engine, which runs on the one
thread that owns the device; when a request ended, the event loop runs Celery's own ``target``, whose task body
picks the outcome up (``running``). So every job stays an ordinary task with its own events, result, revoke and
time limit.

Touches of Celery 5.7 that are not documented: the arguments of ``on_apply`` and their order, that its callbacks
are methods of the ``Request``, ``Request.terminate`` through a weak reference to what ``on_apply`` returns,
``Request._announce_revoked``, ``worker.state.should_stop``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis
from celery.concurrency.base import BasePool
from celery.worker import state

from producer.envelope import check, check_size
from producer.errors import EngineError, InvalidJob, Preempted, StokerError
from producer.job import Job

from .app import Assignment
from .engines.protocol import Engine, Outcome, Request
from .meter import Meter
from .running import Running, waited

logger = logging.getLogger(__name__)

STEP_S = 0.5
"""Longest that the device thread waits for work before it looks whether it should end, in seconds."""

LATE_S = 0.25
"""How late a time limit or a deadline may fire, in seconds."""

EXIT_LOAD_FAILED = 3
EXIT_ENGINE_LOST = 4


class EnginePool(BasePool):  # type: ignore[misc]  # Celery has no types
    """One engine on one thread. ``num_processes`` is what Celery shows as concurrency."""

    signal_safe = False  # stopping waits for the device

    def __init__(self, *args: Any, app: Any, **kwargs: Any) -> None:
        super().__init__(*args, app=app, **kwargs)
        assignment: Assignment = app.assignment
        self.assignment = assignment
        self.engine: Engine = assignment.engine
        self.ledger = assignment.ledger
        self.meter = Meter()
        self.ready_at: float | None = None
        self.draining = False
        self.engine_lost = False
        self._hub: Any = None
        self._running: dict[str, Running] = {}
        self._finished: queue.SimpleQueue[list[Outcome]] = queue.SimpleQueue()
        # Not Hub.call_soon: what a callback of call_soon defers in turn, such as Celery's acknowledgements,
        # waits there until some socket is next readable, up to a second.
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._stopping = threading.Event()
        self._device = threading.Thread(target=self._own_device, name="device", daemon=True)
        app.engine_pool = self

    # -- the event loop's thread ------------------------------------------------------------------

    def register_with_event_loop(self, loop: Any) -> None:
        """Celery gives us its loop, anew after every reconnect."""
        self._hub = loop
        loop.add_reader(self._bell.fileno(), self._settle_finished)
        loop.call_repeatedly(LATE_S, self._end_overdue)
        if threading.current_thread() is threading.main_thread():
            # Python goes on with an interrupted poll: without this, a SIGTERM is noticed when something else
            # happens, and until then another batch may begin.
            signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)

    def on_start(self) -> None:
        """Start the device thread, which loads the model while Celery connects."""
        self._device.start()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # noqa: ARG002  always empty
        callback: Callable[[Any], None],
        accept_callback: Callable[[int, float], None],
        timeout_callback: Callable[[bool, float], None],
        timeout: float | None = None,
        **_: Any,
    ) -> Running:
        """Take one task from Celery; ``args`` is (task, id, request, body, content type, encoding)."""
        request = args[2]
        celery_request: Any = accept_callback.__self__  # type: ignore[attr-defined]  # a method of the Request
        running = Running(
            lease=request["properties"]["delivery_tag"],
            job_id=args[1],
            worker=self.assignment.name,
            target=target,
            args=args,
            callback=callback,
            waited_s=waited(celery_request.message.headers),
            give_up=self._give_up,
        )
        self._running[running.lease] = running
        accept_callback(os.getpid(), time.monotonic())
        self.meter.begin()
        try:
            running.job = Job.parse(request["kwargs"], queue=request["delivery_info"]["routing_key"])
            # Our client checks before it queues; others do not.
            check(running.job, self.assignment.settings)
            check_size(args[3], running.job, self.assignment.settings)
        except InvalidJob as error:
            self._post([Outcome(running.lease, error=error)])
            return running
        if timeout is not None:
            # The message may name a shorter one, not a longer: how long a device may be held is the fleet's to say.
            timeout = min(timeout, self.assignment.settings.model(self.assignment.model).limits.time_limit_s)
            running.ends.append((time.monotonic() + timeout, lambda: timeout_callback(False, timeout)))
        if deadline := celery_request.expires or running.job.deadline:
            at = time.monotonic() + (deadline - datetime.now(UTC)).total_seconds()
            running.ends.append((at, lambda: celery_request._announce_revoked("expired", True, None, True)))
        self.engine.submit(Request(running.lease, running.job.items, dict(running.job.parameters)))
        return running

    def _end_overdue(self) -> None:
        """End the jobs whose time limit or deadline has passed: on the device, and by telling Celery.

        One look over what runs, not a timer for each: the loop keeps a cancelled timer, and with it the job's
        inputs, until it would have fired.
        """
        now = time.monotonic()
        for running in list(self._running.values()):
            for at, tell in running.ends:
                if at <= now:
                    self._give_up(running.lease)
                    tell()
                    break

    def _give_up(self, lease: str) -> None:
        """Stop caring for a request; whatever outcome it still has is dropped."""
        running = self._running.pop(lease, None)
        if running is not None:
            self.engine.cancel(lease)
            self.meter.done([], idle=not self._running)

    def _settle_finished(self) -> None:
        """End every job whose request ended on the device."""
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        while True:
            try:
                outcomes = self._finished.get_nowait()
            except queue.Empty:
                return
            self._settle(outcomes)

    def _settle(self, outcomes: list[Outcome]) -> None:
        ours = [(self._running.pop(each.id), each) for each in outcomes if each.id in self._running]
        ran = [outcome.batch_size for _, outcome in ours if not isinstance(outcome.error, Preempted)]
        self.meter.done(ran, idle=not self._running)
        for running, outcome in ours:
            if isinstance(outcome.error, Preempted):
                self.ledger.release([running.lease])
            elif isinstance(outcome.error, EngineError):
                running.deferred = self._defer(running.lease)
            running.end(outcome)

    def _defer(self, lease: str) -> bool:
        """Put a job aside to be tried again; False when it was tried often enough."""
        try:
            return self.ledger.defer(lease)
        except redis.RedisError as error:
            logger.warning("job %s cannot be put aside now (%s): it goes back", lease, error)
            self.ledger.release([lease])
            return True

    def lose(self, leases: list[str]) -> None:
        """Give up jobs that became another worker's. Thread-safe: the lease renewal finds out."""
        for lease in leases:
            self.engine.cancel(lease)
        self._post([Outcome(lease, error=Preempted("its lease was lost")) for lease in leases])

    @property
    def running_jobs(self) -> list[str]:
        """Ids of the jobs that the engine holds."""
        return [running.job_id for running in list(self._running.values())]

    def on_stop(self) -> None:
        """Drain: finish what runs, give back what has not begun, then free the device.

        In this order: nothing new is taken (Celery has cancelled the consumers, and our capacity is 0); what has
        not begun goes back to its queue; what ends is acknowledged and written; what does not end in time goes
        back under its lease; and only then does the engine go. A second SIGTERM ends the wait.
        """
        self.draining = True
        self.ledger.capacity = lambda: 0
        self.engine.withdraw()
        deadline = time.monotonic() + self.assignment.settings.scaling.drain_s
        hurry = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: hurry.set())
        while self._running and time.monotonic() < deadline and not hurry.is_set() and self._device.is_alive():
            try:
                # Celery's loop has ended; ours goes on with its sockets and timers, so that results are
                # written as they come, and events and remote control work to the end.
                self._hub.run_once()
            except (redis.RedisError, OSError):
                hurry.wait(0.1)  # what ended is kept by the ledger, and written when Redis is back
        self._leave()

    def on_terminate(self) -> None:
        """Cold shutdown: give everything back now."""
        self.draining = True
        self._leave()

    def _leave(self) -> None:
        left = list(self._running)
        if left:
            logger.warning("%s %d unfinished jobs", "abandoning" if self.engine_lost else "giving back", len(left))
        for lease in left:
            self._give_up(lease)
        if self.engine_lost:
            self.ledger.abandon(left)
        self._acknowledge()
        self.ledger.release(self.ledger.held)  # also what never reached the engine
        with contextlib.suppress(redis.RedisError):  # else the leases run out
            self.ledger.flush()  # at once: what was let go is not renewed any more
        self._stopping.set()
        self.engine.withdraw()  # nothing is left to withdraw: it ends the device's wait for work
        self._device.join(timeout=2 * STEP_S + 5)

    def _acknowledge(self) -> None:
        """Let Celery acknowledge what has ended: it leaves that to the next turn of the loop."""
        if self._hub is not None:
            self._post([])  # so that the turn does not wait for anything else
            with contextlib.suppress(redis.RedisError, OSError):
                self._hub.run_once()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing to do: Celery calls ``Running.terminate`` as well, which knows the request."""

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": "workers.pool:EnginePool",
            "max-concurrency": self.limit,
            "model": self.assignment.model,
            "device": self.assignment.device,
        }

    # -- the device's thread ----------------------------------------------------------------------

    def _own_device(self) -> None:
        """Load the model, then step it until the end."""
        model = self.assignment.model
        try:
            self.engine.load()
        except Exception as error:
            told = isinstance(error, StokerError)  # then the message says it all
            logger.critical("model %s could not be loaded: %s", model, error, exc_info=not told)
            state.should_stop = EXIT_LOAD_FAILED
            return
        self.ready_at = time.time()
        logger.info("model %s is ready on %s", model, self.assignment.device)
        if not self.draining:
            self.ledger.capacity = lambda: self.engine.capacity
        try:
            while not self._stopping.is_set():
                reports = self.engine.step(STEP_S)
                if outcomes := [report for report in reports if isinstance(report, Outcome)]:
                    self._post(outcomes)
        except Exception:
            # Its jobs are abandoned, not given back: one may be the cause, so the loss has to be counted.
            logger.critical("the engine of model %s is lost", model, exc_info=True)
            self.engine_lost = True
            self.ledger.capacity = lambda: 0
            state.should_stop = EXIT_ENGINE_LOST
        finally:
            self.engine.close()

    def _post(self, outcomes: list[Outcome]) -> None:
        self._finished.put(outcomes)
        with contextlib.suppress(BlockingIOError):  # full of rings not yet answered: one is enough
            self._ring.send(b"\0")
