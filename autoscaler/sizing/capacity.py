"""Capacity: the throughput of a full replica, learned while replicas are not full.

``n`` jobs that share a device each take ``fixed + per_job * n`` seconds, so that the device does
``n / (fixed + per_job * n)`` jobs a second. Iterations of a continuous batch follow that line in Orca and Splitwise
(Patel et al., ISCA 2024). One rate measured on a half-empty batch does not identify the line; rates at two batch sizes
do. ``history.py`` beside this feeds it, from what workers measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MEMORY_S = 600.0
"""Half-life of the measurements, in seconds: jobs change."""
DISTINCT = 1e-3
"""Relative spread of batch sizes below which the line cannot be identified."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """A fit of ``rate * (fixed / shared + per_job) = 1``, as sums over rates ``r`` and ``w = 1 / shared``.

    Rates are noisy and ``w`` is not, so the errors are weighed by 1 and ``w`` (instrumental variables; Wright, 1928).
    Least squares would weigh them by the rates, and overestimate the capacity by the square of the noise: by a tenth,
    where a rate is measured on a dozen jobs.
    """

    n: float = 0.0
    w: float = 0.0
    r: float = 0.0
    rw: float = 0.0
    rww: float = 0.0

    def after(self, passed_s: float, seen: Iterable[tuple[float, float]]) -> Capacity:
        """The fit with new measurements.

        Args:
            passed_s: seconds since the last ones.
            seen: pairs of (jobs that shared the device, jobs per second).
        """
        keep = 0.5 ** (passed_s / MEMORY_S)
        n, w, r, rw, rww = (part * keep for part in (self.n, self.w, self.r, self.rw, self.rww))
        for shared, per_s in seen:
            if shared > 0 and per_s > 0:
                inverse = 1 / shared
                n, w, r = n + 1, w + inverse, r + per_s
                rw, rww = rw + per_s * inverse, rww + per_s * inverse * inverse
        return Capacity(n, w, r, rw, rww)

    def per_s(self, jobs: float) -> float:
        """Jobs per second of a replica that holds ``jobs`` at a time; 0 without any measurement."""
        if self.r <= 0:
            return 0.0
        determinant = self.r * self.rww - self.rw * self.rw
        per_job, fixed = self.n / self.r, 0.0
        if determinant > DISTINCT * self.r * self.rww:
            slope = (self.n * self.rww - self.w * self.rw) / determinant
            rest = (self.w * self.r - self.n * self.rw) / determinant
            if slope < 0:  # larger batches took less time: the cost per job is within the noise
                return jobs * self.rw / self.n
            if rest > 0:
                per_job, fixed = slope, rest
        return jobs / (fixed + per_job * jobs)
