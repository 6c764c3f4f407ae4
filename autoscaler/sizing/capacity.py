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
    """A least-squares fit of the relative errors, as sums over ``u = n / seconds`` and ``v = 1 / seconds``."""

    uu: float = 0.0
    uv: float = 0.0
    vv: float = 0.0
    u: float = 0.0
    v: float = 0.0

    def after(self, passed_s: float, seen: Iterable[tuple[float, float]]) -> Capacity:
        """The fit with new measurements.

        Args:
            passed_s: seconds since the last ones.
            seen: pairs of (jobs that shared the device, jobs per second).
        """
        keep = 0.5 ** (passed_s / MEMORY_S)
        uu, uv, vv, u, v = (part * keep for part in (self.uu, self.uv, self.vv, self.u, self.v))
        for shared, per_s in seen:
            if shared > 0 and per_s > 0:
                inverse = per_s / shared
                uu, uv, vv = uu + per_s * per_s, uv + per_s * inverse, vv + inverse * inverse
                u, v = u + per_s, v + inverse
        return Capacity(uu, uv, vv, u, v)

    def per_s(self, jobs: float) -> float:
        """Jobs per second of a replica that holds ``jobs`` at a time; 0 without any measurement."""
        if self.uu <= 0:
            return 0.0
        determinant = self.uu * self.vv - self.uv * self.uv
        per_job, fixed = self.u / self.uu, 0.0
        if determinant > DISTINCT * self.uu * self.vv:
            slope = (self.u * self.vv - self.v * self.uv) / determinant
            rest = (self.v * self.uu - self.u * self.uv) / determinant
            if slope < 0:  # larger batches took less time: the cost per job is within the noise
                return jobs * self.vv / self.v
            if rest > 0:
                per_job, fixed = slope, rest
        return jobs / (fixed + per_job * jobs)
