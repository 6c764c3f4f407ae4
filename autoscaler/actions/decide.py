"""Decide: from an observation and the memory of earlier rounds to the actions of this round. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..roster import Phase, Worker
from ..sizing.policy_registry import BACKLOG, Policy
from .grow import grow
from .inputs import inputs
from .removal import remove
from .shrink import shrink

if TYPE_CHECKING:
    from ..observation import Memory, Observation
    from .decision import Decision, Drain


def decide(seen: Observation, memory: Memory, policy: Policy = BACKLOG) -> tuple[list[Decision], Memory]:
    """The decisions of this round, each with its reason, and the memory for the next.

    Unmanaged workers are never stopped, faulty devices never used, a model's maximum never exceeded. A draining worker
    holds its device until it has ended. A model whose demand is unknown is neither grown nor shrunk.
    """
    sizes, memory = policy.sizes(seen, memory)
    removals, memory = remove(seen, memory)
    workers = _told(seen.workers, removals)
    drains, memory = shrink(seen, memory, sizes, [worker for worker in workers if worker.serves])
    growth, memory = grow(seen, memory, sizes, _told(workers, drains))
    decided = [*removals, *drains, *growth]
    told = [replace(one, inputs=inputs(seen, sizes, one)) for one in decided]
    return told, replace(memory, sizes=sizes)


def _told(workers: Sequence[Worker], drains: Sequence[Drain]) -> list[Worker]:
    """The workers, with those that are drained in this round in phase ``DRAINING``."""
    going = {drain.worker for drain in drains}
    return [replace(one, phase=Phase.DRAINING) if one.name in going else one for one in workers]
