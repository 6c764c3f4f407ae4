"""The batch process: runs open batches without a lease holder, a few at a time, each on a thread of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from producer.client import Client
from producer.contract import keys
from producer.contract.connection import close, connect
from producer.contract.errors import BrokerUnavailable
from producer.contract.redis_errors import cannot_serve, trouble
from producer.contract.settings import Settings

from .batch_run import BatchRun, Stopped
from .lease import Lease, LeaseLost
from .records import Status
from .store import store_of
from .submit_loop import OUTAGE_PAUSE_S

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Interval at which open batches are looked for, in seconds."""

AT_ONCE = 8
"""Most batches of one process at a time. Each may hold ``in_flight.MOST_BYTES`` of lines."""

LOOK_AT = 200
"""Most open batches that are considered, the oldest ones."""


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
        self._store = store_of(settings)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._stop = threading.Event()
        self._told = ""
        self._running: dict[str, tuple[str, threading.Thread]] = {}  # batch -> its tenant and thread

    def stop(self) -> None:
        """Have :meth:`run` end. Batches go on in other processes, or later. Safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run open batches until stopped."""
        self._store.tidy()
        while not self._stop.wait(POLL_S):
            self._settings = self._reread()
            self._running = {each: it for each, it in self._running.items() if it[1].is_alive()}
            try:
                self._take_on()
                self._told = ""
            except RedisError as error:
                if not cannot_serve(error):
                    raise
                self._tell(trouble(error, self._settings))
        for _, thread in self._running.values():
            thread.join()
        close(self._redis)

    def _tell(self, trouble: str) -> None:
        """Log what keeps batches from being taken on, when it begins and not twice a second while it lasts."""
        if trouble != self._told:
            log.warning("%s. Batches wait", trouble)
        self._told = trouble

    def _take_on(self) -> None:
        for batch_id, tenant in self._candidates():
            if len(self._running) >= AT_ONCE:
                return
            lease = Lease(self._redis, batch_id, self._settings.redis.lease_s, self._name)
            if lease.claim():
                thread = threading.Thread(target=self._run, args=(lease,), name=batch_id)
                self._running[batch_id] = (tenant, thread)
                thread.start()

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Open batches that do not run here, with their tenants: first those of tenants that have least running here,
        then the oldest.
        """
        redis: Any = self._redis
        found = [each.decode() for each in redis.zrangebylex(keys.open_batches(), "-", "+", 0, LOOK_AT)]
        idle = [each for each in found if each not in self._running]
        if not idle or len(self._running) >= AT_ONCE:
            return
        tenants = {each: Lease(self._redis, each, 1.0, "").record().tenant for each in idle}
        busy = Counter(tenant for tenant, _ in self._running.values())
        while idle:
            chosen = min(idle, key=lambda each: busy[tenants[each]])
            idle.remove(chosen)
            busy[tenants[chosen]] += 1
            yield chosen, tenants[chosen]

    def _run(self, lease: Lease) -> None:
        batch_id = lease.batch_id
        log.info("%s: taken on", batch_id)
        try:
            while (ended := self._through_outages(lease)) is None:
                self._stop.wait(OUTAGE_PAUSE_S)
            log.info("%s: %s", batch_id, ended)
        except Stopped:
            log.info("%s: left to go on later", batch_id)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception:
            # The lease is kept until it runs out: whoever tries next does so after a pause.
            log.exception("%s: tried again in %g s", batch_id, self._settings.redis.lease_s)

    def _through_outages(self, lease: Lease) -> Status | None:
        """How the batch ended; None when Redis went away at a moment at which it is best to begin again."""
        try:
            with Client(self._settings, withdraws=True) as client:
                return BatchRun(self._redis, client, self._store, lease, self._stop).run()
        except (BrokerUnavailable, RedisError) as error:
            if not cannot_serve(error):
                raise
            if self._stop.is_set():
                raise Stopped("the process is to end, and Redis cannot serve") from None
            return None
