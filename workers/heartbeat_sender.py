"""Sending heartbeats: once a second a worker publishes its state, its jobs and its throughput."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import redis

from producer.contract import heartbeat, keys
from producer.contract.heartbeat import Heartbeat, WorkerState
from producer.contract.process_identity import of_process

from .app import WorkerApp
from .pool import EnginePool


class HeartbeatSender:
    """Writes heartbeats, and the measured rate and load time of the model, which the autoscaler sizes by."""

    def __init__(self, app: WorkerApp, client: redis.Redis, launched_by: str) -> None:
        self._app = app
        self._redis = client
        self._launched_by = launched_by
        self._identity = of_process(os.getpid())
        self._created_at = time.time() - self._identity.age_s
        self._last: tuple[float, float] | None = None
        self._load_told = False
        self._knows = False

    def beat(self) -> None:
        """Write one heartbeat."""
        pool: EnginePool | None = self._app.engine_pool
        beat = self._describe(pool)
        heartbeat.write(self._redis, beat)
        if pool is not None and not self._knows:
            pool.holding.load(self._redis)
            self._knows = True
        measured: dict[str, float] = {}
        if beat.jobs_per_s > 0 and pool is not None and pool.meter.known:
            measured["jobs_per_s"] = round(beat.jobs_per_s, 3)
            measured["run_s"] = round(beat.batch_size / beat.jobs_per_s, 3)  # Little's law
            if beat.device_type:
                measured[f"jobs_per_s:{beat.device_type}"] = measured["jobs_per_s"]
        if beat.ready_at is not None and not self._load_told:
            measured["load_s"] = round(beat.ready_at - beat.started_at, 3)
        if measured:
            self._redis.hset(keys.throughput(beat.model), items=[part for pair in measured.items() for part in pair])
            self._load_told = self._load_told or "load_s" in measured
            if pool is not None:
                pool.holding.save(self._redis)

    def stop(self) -> None:
        """Remove the heartbeat, so that readers need not wait for it to expire."""
        with contextlib.suppress(redis.RedisError):  # it then expires by itself
            heartbeat.remove(self._redis, self._app.assignment.name)

    def _describe(self, pool: EnginePool | None) -> Heartbeat:
        assignment = self._app.assignment
        # Every beat derives its times from now and elapsed times, so that setting the clock changes no duration.
        now, ticking = time.time(), time.monotonic()
        about = {
            "name": assignment.name,
            "model": assignment.model,
            "device": assignment.device,
            "device_type": assignment.device_type,
            "device_uuid": assignment.device_uuid,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": self._identity.machine,
            "pid_started_ticks": self._identity.started_ticks,
            "pid_created_at": self._created_at,
            "launched_by": self._launched_by,
            "started_at": now - self._identity.age_s,
            "beat_at": now,
        }
        if pool is None:
            return Heartbeat(state=WorkerState.LOADING, **about)
        rate, batch_size, busy_s = pool.meter.read()
        last_at, last_busy = self._last or (ticking, busy_s)
        self._last = (ticking, busy_s)
        ready = pool.device.ready_at
        return Heartbeat(
            state=_state(pool),
            ready_at=None if ready is None else now - (ticking - ready),
            capacity=pool.capacity,
            running=tuple(map(heartbeat.mark, pool.running_jobs)),
            jobs_done=pool.meter.jobs_done,
            jobs_per_s=rate,
            batch_size=batch_size,
            breaker=pool.breaker.state(ticking),
            failing=pool.breaker.why,
            busy=min(1.0, (busy_s - last_busy) / (ticking - last_at)) if ticking > last_at else 0.0,
            **about,
        )


def _state(pool: EnginePool) -> WorkerState:
    if pool.draining:
        return WorkerState.DRAINING
    return WorkerState.LOADING if pool.device.ready_at is None else WorkerState.READY
