"""How fast a worker is, measured while it has work."""

from __future__ import annotations

import threading
import time

MEMORY_S = 30.0
"""How far back the rate looks, in seconds of busy time."""


class Meter:
    """Jobs per second of busy time, mean batch size and busy share. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._busy_s = 0.0  # decays with MEMORY_S, as do the next two
        self._jobs = 0.0
        self._batch_sizes = 0.0
        self._busy_total = 0.0
        self.jobs_done = 0

    def begin(self) -> None:
        """The engine has work."""
        with self._lock:
            if self._busy_since is None:
                self._busy_since = time.monotonic()

    def done(self, batch_sizes: list[int], idle: bool) -> None:
        """Jobs ended, each having shared the device with so many; ``idle`` when none is left."""
        with self._lock:
            self.jobs_done += len(batch_sizes)
            self._account(time.monotonic())
            self._jobs += len(batch_sizes)
            self._batch_sizes += sum(batch_sizes)
            if idle:
                self._busy_since = None

    def _account(self, now: float) -> None:
        if self._busy_since is None:
            return
        passed = now - self._busy_since
        self._busy_since = now
        self._busy_total += passed
        keep = MEMORY_S / (MEMORY_S + passed)
        self._busy_s = self._busy_s * keep + passed
        self._jobs *= keep
        self._batch_sizes *= keep

    @property
    def known(self) -> bool:
        """Whether the rate stands on a job at least; while one long job runs, it fades to none."""
        with self._lock:
            return self._jobs >= 1.0

    def read(self) -> tuple[float, float, float]:
        """Jobs per second of busy time, mean batch size, and seconds busy since the start."""
        with self._lock:
            self._account(time.monotonic())
            rate = self._jobs / self._busy_s if self._busy_s > 0 else 0.0
            size = self._batch_sizes / self._jobs if self._jobs > 0 else 0.0
            return rate, size, self._busy_total
