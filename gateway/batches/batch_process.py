"""The batch process: runs open batches without a lease holder, a few at a time, each on a thread of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from producer.client import Client
from producer.contract import keys
from producer.contract.errors import BrokerUnavailable
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import close, connect
from producer.contract.server.redis_errors import cannot_serve, trouble
from producer.contract.server.server_requirements import check_at_start

from .batch_run import BatchRun, Stopped
from .lines.submit_loop import OUTAGE_PAUSE_S
from .storage.lease import Lease, LeaseLost
from .storage.records import Status
from .storage.store import store_of
from .turns import RunningBatch, next_batch, to_stop

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Interval at which open batches are looked for, in seconds."""

LOOK_AT = 50
"""Most open batches of a tenant that are considered: of the oldest, those that ran least recently."""


class _Run:
    """A batch that runs on a thread of its own."""

    def __init__(self, tenant: str, lease: Lease) -> None:
        self.tenant = tenant
        self.lease = lease
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self._progress, self._progressed_at = 0, time.monotonic()

    def advance(self) -> None:
        """Note that a line was checked or answered, or a part of the output written."""
        self._progress += 1
        self._progressed_at = time.monotonic()

    @property
    def now(self) -> RunningBatch:
        """It, at this moment."""
        return RunningBatch(self.lease.batch_id, self.tenant, time.monotonic() - self._progressed_at)


class Runner:
    """Runs batches until it is stopped. Any number of these may run, on any machines that share the files.

    Args:
        reread: the present settings, such as :meth:`FleetFile.again`, for batches that are taken on from now; by
            default they stay as they are.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
        self._settings = settings
        self._reread = reread or (lambda: settings)
        self._redis: Redis = connect(settings)
        check_at_start(self._redis)
        self._store = store_of(settings)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stop = threading.Event()
        self._told = ""
        self._running: dict[str, _Run] = {}
        self._ran_at: dict[str, float] = {}
        """When each batch last stopped running here before its end."""
        self._changed = threading.Event()
        """Set when a batch has stopped running, and when the process is to end."""

    def stop(self) -> None:
        """Have :meth:`run` end. Batches go on in other processes, or later. Safe in a signal handler."""
        self._stop.set()
        self._changed.set()

    def run(self) -> None:
        """Run open batches until stopped."""
        self._store.tidy()
        while not self._stop.is_set():
            self._changed.wait(POLL_S)
            self._changed.clear()
            self._settings = self._reread()
            self._running = {each: it for each, it in self._running.items() if it.thread and it.thread.is_alive()}
            try:
                self._take_on()
                self._told = ""
            except RedisError as error:
                if not cannot_serve(error):
                    raise
                self._tell(trouble(error, self._settings))
        for each in self._running.values():
            each.stop.set()
        for each in self._running.values():
            if each.thread:
                each.thread.join()
        close(self._redis)

    def _tell(self, trouble: str) -> None:
        """Log what keeps batches from being taken on, when it begins and not twice a second while it lasts."""
        if trouble != self._told:
            log.warning("%s. Batches wait", trouble)
        self._told = trouble

    def _take_on(self) -> None:
        waiting = self._waiting()
        while (found := next_batch(self._now(), waiting)) is not None:
            batch_id, tenant = found
            waiting[tenant].remove(batch_id)
            lease = Lease(self._redis, batch_id, self._settings.redis.lease_s, self._name)
            if lease.claim():
                run = self._running[batch_id] = _Run(tenant, lease)
                run.thread = threading.Thread(target=self._run, args=(run,), name=batch_id)
                run.thread.start()
        if any(run.stop.is_set() for run in self._running.values()):
            return  # one after the other
        if (stopped := to_stop(self._now(), self._free(waiting))) is not None:
            log.info("%s: makes room for others", stopped)
            self._running[stopped].stop.set()

    def _now(self) -> list[RunningBatch]:
        return [run.now for run in self._running.values()]

    def _waiting(self) -> dict[str, list[str]]:
        """By tenant, the open batches that do not run here: those that have not run, the oldest first, then the others
        by when they last did. Tenants in the order of their oldest batch."""
        redis: Any = self._redis
        tenants = [each.decode() for each in redis.zrange(keys.open_tenants(), 0, -1)]
        with redis.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.zrangebylex(keys.open_batches_of(tenant), "-", "+", 0, LOOK_AT)
            found = [[each.decode() for each in batches] for batches in pipe.execute()]
        opened = {batch_id for batches in found for batch_id in batches}
        self._ran_at = {each: at for each, at in self._ran_at.items() if each in opened}
        oldest = sorted(zip(found, tenants, strict=True))
        waiting = {tenant: [each for each in batches if each not in self._running] for batches, tenant in oldest}
        for batches in waiting.values():
            batches.sort(key=lambda each: self._ran_at.get(each, 0.0))
        return waiting

    def _free(self, waiting: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Those of the waiting batches that no other process runs."""
        redis: Any = self._redis
        flat = [batch_id for batches in waiting.values() for batch_id in batches]
        leased = redis.mget([keys.batch_lease(each) for each in flat]) if flat else []
        free = {batch_id for batch_id, holder in zip(flat, leased, strict=True) if holder is None}
        return {tenant: [each for each in batches if each in free] for tenant, batches in waiting.items()}

    def _run(self, run: _Run) -> None:
        batch_id = run.lease.batch_id
        log.info("%s: taken on", batch_id)
        try:
            while (ended := self._through_outages(run)) is None:
                run.stop.wait(OUTAGE_PAUSE_S)
            log.info("%s: %s", batch_id, ended)
        except Stopped:
            self._ran_at[batch_id] = time.monotonic()
            log.info("%s: left to go on later", batch_id)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception:
            # The lease is kept until it runs out: whoever tries next does so after a pause.
            log.exception("%s: tried again in %g s", batch_id, self._settings.redis.lease_s)
        finally:
            self._changed.set()

    def _through_outages(self, run: _Run) -> Status | None:
        """How the batch ended; None when Redis went away at a moment at which it is best to begin again."""
        try:
            with Client(self._settings, reads=True) as client:
                return BatchRun(self._redis, client, self._store, run.lease, run.stop, run.advance).run()
        except (BrokerUnavailable, RedisError) as error:
            if not cannot_serve(error):
                raise
            if run.stop.is_set():
                raise Stopped("the batch is to stop, and Redis cannot serve") from None
            return None
