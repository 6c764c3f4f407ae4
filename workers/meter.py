"""LiveMeter: the throughput of a worker, fed by the event loop, read by the thread that writes heartbeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from scheduler import meter


class LiveMeter:
    """A thread-safe ``scheduler.meter.Meter`` that reads the monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meter = meter.Meter()

    def begin(self) -> None:
        """Count time as busy from now on: the engine has got work."""
        with self._lock:
            self._meter.begin(time.monotonic())

    def done(self, batch_sizes: Sequence[int], idle: bool) -> None:
        """Count jobs that ended, one for each of ``batch_sizes``: how many jobs shared the device. ``idle``: none is
        left."""
        with self._lock:
            self._meter.done(time.monotonic(), len(batch_sizes), sum(batch_sizes), idle)

    @property
    def jobs_done(self) -> int:
        """Jobs ended since the start."""
        return self._meter.jobs_done

    @property
    def known(self) -> bool:
        """See :class:`scheduler.meter.Meter`."""
        return self._meter.known

    def read(self) -> tuple[float, float, float]:
        """Jobs per second of busy time, mean batch size, and seconds busy since the start."""
        with self._lock:
            self._meter.look(time.monotonic())
            return self._meter.jobs_per_s, self._meter.batch_size, self._meter.busy_s
