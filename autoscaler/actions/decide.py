"""Decide: from what is seen, and what was done lately, to what is done now. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..roster import Phase, Worker
from ..sizing.policy import BACKLOG, Policy
from .grow import grow
from .inputs import inputs
from .removal import remove
from .shrink import shrink

if TYPE_CHECKING:
    from ..observation import Memory, Observation
    from .decision import Decision, Drain


def decide(seen: Observation, memory: Memory, policy: Policy = BACKLOG) -> tuple[list[Decision], Memory]:
    """What to do in this round, each with the reason for it, and what to remember.

    Never stops a worker that is not managed, never uses a faulty device, never starts beyond a model's
    maximum. A worker that drains holds its device until it is gone. A model whose demand could not
    be told is neither grown nor shrunk.
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
    """The workers, those that were just told to go in phase ``DRAINING``."""
    going = {drain.worker for drain in drains}
    return [replace(one, phase=Phase.DRAINING) if one.name in going else one for one in workers]
