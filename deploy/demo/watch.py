"""Sampling of a fleet: queues and workers, every ``EVERY_S`` seconds, and the autoscaler's decisions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis as redis_py

from producer.contract import heartbeat, keys
from producer.contract.heartbeat import WorkerState
from producer.contract.published import JournalEntry
from scheduler.queue_lengths import observe

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.fleet.settings import Settings

EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class DemoSample:
    """The fleet at Unix time ``at``: jobs queued by (model, tier), jobs in flight and workers by model."""

    at: float
    queued: dict[tuple[str, str], int]
    inflight: dict[str, int]
    workers: dict[str, list[WorkerState]]

    @property
    def at_rest(self) -> bool:
        """Whether no job is queued or in flight and no worker is up."""
        return not (any(self.queued.values()) or any(self.inflight.values()) or any(self.workers.values()))


@dataclass(slots=True)
class Life:
    """A worker's life: the Unix times of its first heartbeat and of being ready, None until then."""

    model: str
    spoke_at: float
    ready_at: float | None = None


class Watch(threading.Thread):
    """Thread that takes samples until it is stopped, and passes each sample and decision to a callback."""

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        on_sample: Callable[[DemoSample], None],
        on_decision: Callable[[JournalEntry], None],
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self.samples: list[DemoSample] = []
        self.decisions: list[JournalEntry] = []
        self.lives: dict[str, Life] = {}
        self._redis = redis
        self._settings = settings
        self._on_sample = on_sample
        self._on_decision = on_decision
        self._last = "-"
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop sampling and wait for the thread to end."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Take samples until stopped; none while the server does not answer."""
        while not self._stopping.wait(EVERY_S):
            try:
                self._sample()
            except redis_py.RedisError:
                continue

    def _sample(self) -> None:
        queues = observe(self._redis, self._settings)
        workers: dict[str, list[WorkerState]] = {name: [] for name in queues}
        for beat in heartbeat.read_all(self._redis):
            workers.setdefault(beat.model, []).append(beat.state)
            life = self.lives.setdefault(beat.name, Life(beat.model, beat.beat_at))
            life.ready_at = beat.ready_at
        queued = {(tier.model, tier.tier): tier.length for model in queues.values() for tier in model.tiers}
        inflight = {name: model.inflight for name, model in queues.items()}
        self.samples.append(DemoSample(time.time(), queued, inflight, workers))
        entries: Any = self._redis.xrange(keys.decisions(), min=self._last, count=100)  # a union over protocols
        for entry_id, fields in entries:
            self._last = f"({entry_id.decode()}"
            self.decisions.append(JournalEntry.of_fields(fields))
            self._on_decision(self.decisions[-1])
        self._on_sample(self.samples[-1])
