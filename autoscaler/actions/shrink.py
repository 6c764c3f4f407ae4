"""Shrinking: draining workers that have been surplus for long enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..observation import Memory, Observation, Surplus
from .decision import Drain

if TYPE_CHECKING:
    from ..roster import Worker
    from ..sizing.size import Size


def shrink(
    seen: Observation, memory: Memory, sizes: Mapping[str, Size], staying: Sequence[Worker]
) -> tuple[list[Drain], Memory]:
    """Drain the surplus of every model that has had one for ``idle_s``; at once what was never needed.

    Workers with the fewest running jobs go first, among them the youngest: older ones have warm caches.
    """
    scaling = seen.settings.scaling
    drains: list[Drain] = []
    remembered: dict[str, Surplus] = {}
    by_model: dict[str, list[Worker]] = {name: [] for name in sizes}
    for worker in staying:
        by_model.setdefault(worker.model, []).append(worker)
    for name, wanted in sizes.items():
        own = by_model[name]
        if wanted.replicas >= len(own):
            continue
        surplus = _surplus(seen, memory, name, wanted.replicas)
        lasted = seen.now - surplus.since
        keep, why = surplus.needed, f"at most {surplus.needed} needed for {lasted:.0f} s"
        if lasted < (scaling.idle_s if wanted.spare_s is None else wanted.spare_s):
            remembered[name] = surplus
            if wanted.needed is None or wanted.needed >= len(own):
                continue
            keep, why = wanted.needed, f"no more than {wanted.needed} were ever needed"
        victims = sorted(
            (worker for worker in own if worker.managed),
            key=lambda worker: (worker.running, -worker.started_at, worker.name),
        )
        reason = f"{len(own)} replicas, {why}; {wanted.reason}"
        drains += [
            Drain(name, worker.name, worker.device, scaling.drain_s, reason)
            for worker in victims[: min(len(own) - keep, scaling.max_step)]
        ]
        if len(own) - keep > scaling.max_step:
            remembered[name] = surplus
    return drains, replace(memory, surplus=remembered)


def _surplus(seen: Observation, memory: Memory, model: str, needed: int) -> Surplus:
    idle_s = seen.settings.scaling.idle_s
    if seen.demands[model].quiet_s >= idle_s:
        return Surplus(seen.now - seen.demands[model].quiet_s, needed)  # its quiet time was its waiting time
    before = memory.surplus.get(model, Surplus(seen.now, needed))
    return Surplus(before.since, max(before.needed, needed))
