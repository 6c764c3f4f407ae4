"""The meter: a worker's rate over its busy time, of live and simulated workers."""

from __future__ import annotations

MEMORY_S = 30.0
"""Time constant of the exponential weights, in seconds of busy time."""


class Meter:
    """Rate and mean batch size over the last ``MEMORY_S`` of busy time. Time is a value, in seconds by any clock that
    does not go back. Not thread-safe.
    """

    __slots__ = ("_batch_sizes", "_busy", "_busy_s", "_jobs", "_looked_at", "busy_s", "jobs_done")

    def __init__(self) -> None:
        self._busy = False
        self._looked_at = 0.0
        self._busy_s = self._jobs = self._batch_sizes = 0.0  # decay with MEMORY_S
        self.busy_s = 0.0
        """Seconds busy since the start, as of the last look."""
        self.jobs_done = 0
        """Jobs ended since the start."""

    def begin(self, now: float) -> None:
        """The worker has got work, if it had none."""
        if not self._busy:
            self._busy, self._looked_at = True, now

    def done(self, now: float, jobs: int, batch_sizes: int, idle: bool) -> None:
        """Count jobs that ended.

        Args:
            batch_sizes: the sum, over these jobs, of how many jobs shared the device with each, itself included.
            idle: whether the worker has no work left.
        """
        self.look(now)
        self.jobs_done += jobs
        self._jobs += jobs
        self._batch_sizes += batch_sizes
        self._busy = not idle

    def look(self, now: float) -> None:
        """Count the busy time until now."""
        if not self._busy:
            return
        passed = now - self._looked_at
        self._looked_at = now
        self.busy_s += passed
        keep = MEMORY_S / (MEMORY_S + passed)
        self._busy_s = self._busy_s * keep + passed
        self._jobs *= keep
        self._batch_sizes *= keep

    @property
    def known(self) -> bool:
        """Whether the rate is measured on at least one job; while one long job runs, it decays towards none."""
        return self._jobs >= 1.0

    @property
    def jobs_per_s(self) -> float:
        """Jobs per second of busy time, as of the last look; 0 before any job ended."""
        return self._jobs / self._busy_s if self._busy_s > 0 else 0.0

    @property
    def batch_size(self) -> float:
        """Mean batch size of the jobs that ended; 0 before any did."""
        return self._batch_sizes / self._jobs if self._jobs > 0 else 0.0
