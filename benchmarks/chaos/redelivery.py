"""How long the jobs of a killed worker wait until another worker has claimed them."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from typing import Any

import redis as redis_py

from producer.contract import keys

from .announcements import Announcements
from .arena import MODEL, OUTAGE

SAMPLE_S = 0.03


class Redelivery:
    """Watches the in-flight jobs. Which leases are whose is learned from results, which name their worker.

    The clock of a job starts when its worker is killed, and stops when it is seen under another lease or its
    result is there. The samples are ``SAMPLE_S`` apart, so a figure is up to that much too long.
    """

    def __init__(self, url: str, heard: Announcements) -> None:
        self._redis: Any = redis_py.Redis.from_url(url, socket_timeout=5)
        self._heard = heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redelivery", daemon=True)
        self._lock = threading.Lock()
        self._owners: dict[str, str] = {}  # owner part of a lease -> worker
        self._held: dict[str, dict[str, str]] = {}  # owner -> job id -> lease, as last seen
        self._killed: dict[str, float] = {}  # worker -> when; not yet joined with what it held
        self._waiting: dict[str, tuple[str, float]] = {}  # job id -> its dead lease, when its worker was killed
        self.took: list[float] = []
        self.unattributed = 0
        """Workers killed before they had answered anything: most held nothing, being still at their start."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()
        self._redis.close()

    def killed(self, worker: str) -> None:
        """A worker was killed just now."""
        with self._lock:
            self._killed[worker] = time.monotonic()

    @property
    def waiting(self) -> int:
        """Jobs of killed workers that have not been claimed again yet."""
        return len(self._waiting)

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            try:
                in_flight = self._redis.hgetall(keys.inflight(MODEL))
            except OUTAGE:
                continue
            with self._lock:
                self._look(time.monotonic(), in_flight)

    def _look(self, now: float, in_flight: dict[bytes, bytes]) -> None:
        held: defaultdict[str, dict[str, str]] = defaultdict(dict)
        leases: dict[str, str] = {}
        for raw, message in in_flight.items():
            lease, job_id = raw.decode(), json.loads(message)["headers"]["id"]
            held[lease.partition("|")[2].partition(".")[0]][job_id] = lease
            leases[job_id] = lease
        self._learn()
        for worker, when in self._killed.items():
            self._begin(worker, when, held, leases)
        self._killed.clear()
        for job_id, (lease, since) in list(self._waiting.items()):
            if leases.get(job_id, lease) != lease or job_id in self._heard.first:
                self.took.append(now - since)
                del self._waiting[job_id]
        self._held = dict(held)

    def _learn(self) -> None:
        """Credit each new result to the worker that held the job at the previous look."""
        for owner, jobs in self._held.items():
            stored = next((self._heard.first[job_id] for job_id in jobs if job_id in self._heard.first), None)
            if owner not in self._owners and stored is not None and decode_worker(stored):
                self._owners[owner] = decode_worker(stored)

    def _begin(self, worker: str, when: float, held: dict[str, dict[str, str]], leases: dict[str, str]) -> None:
        owners = [owner for owner, name in self._owners.items() if name == worker]
        if not owners:
            unknown = [owner for owner in held if owner not in self._owners]
            if len(unknown) != 1:
                self.unattributed += 1
                return
            owners = unknown
            self._owners[unknown[0]] = worker
        for owner in owners:
            # What it held just before counts too, where the server was away and others were faster than we.
            taken_over = {
                job: lease for job, lease in self._held.get(owner, {}).items() if leases.get(job, lease) != lease
            }
            for job_id, lease in {**taken_over, **held.get(owner, {})}.items():
                self._waiting[job_id] = (lease, when)


def decode_worker(stored: bytes) -> str:
    """The worker that made a result; empty for a failure, which does not say."""
    result = json.loads(stored)["result"]
    return str(result["timing"]["worker"]) if "timing" in result else ""
