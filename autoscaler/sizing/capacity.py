"""Capacity: what a replica would do if it were full, learned while it is not.

``n`` jobs that share a device each take ``fixed + per_job * n`` seconds, so that it does ``n / (fixed + per_job * n)``
a second: the line that iterations of a continuous batch follow in Orca and Splitwise (Patel et al., ISCA 2024). A rate
that was measured on a half-empty batch says little by itself; two of different sizes tell the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MEMORY_S = 600.0
"""Half of what is known is from longer ago than this, or was never: jobs change."""
DISTINCT = 1e-3
"""Below this spread of their sizes, relative, batches tell no line."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The least squares of the relative errors so far, as sums over ``u = n / seconds`` and ``v = 1 / seconds``."""

    uu: float = 0.0
    uv: float = 0.0
    vv: float = 0.0
    u: float = 0.0
    v: float = 0.0

    def after(self, passed_s: float, seen: Iterable[tuple[float, float]]) -> Capacity:
        """With what replicas did lately, as (jobs that shared the device, jobs per second)."""
        keep = 0.5 ** (passed_s / MEMORY_S)
        uu, uv, vv, u, v = (part * keep for part in (self.uu, self.uv, self.vv, self.u, self.v))
        for shared, per_s in seen:
            if shared > 0 and per_s > 0:
                inverse = per_s / shared
                uu, uv, vv = uu + per_s * per_s, uv + per_s * inverse, vv + inverse * inverse
                u, v = u + per_s, v + inverse
        return Capacity(uu, uv, vv, u, v)

    def per_s(self, jobs: float) -> float:
        """Jobs per second of a replica that holds so many at a time; 0 as long as nothing was seen."""
        if self.uu <= 0:
            return 0.0
        determinant = self.uu * self.vv - self.uv * self.uv
        per_job, fixed = self.u / self.uu, 0.0
        if determinant > DISTINCT * self.uu * self.vv:
            slope = (self.u * self.vv - self.v * self.uv) / determinant
            rest = (self.v * self.uu - self.u * self.uv) / determinant
            if slope < 0:  # the more, the faster for each: no cost per job is seen yet
                return jobs * self.vv / self.v
            if rest > 0:
                per_job, fixed = slope, rest
        return jobs / (fixed + per_job * jobs)
