"""The layout of a claim: the keys and arguments of ``claim.lua`` by name, for both sides.

Python fills the dataclasses and flattens them in the order of their fields; Lua gets ``LUA``, made from the same
fields, which names them again: ``key.inflight``, ``arg.lease_s``, ``queues[i].hold_s``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import chain
from operator import attrgetter
from typing import Any


@dataclass(frozen=True, slots=True)
class ClaimKeys:
    """The keys of a claim, before those of its queues (lists)."""

    inflight: str  # hash
    leases: str  # sorted set
    losses: str  # hash
    served: str  # hash
    taken: str  # hash
    cancelled: str  # sorted set
    suspects: str  # list
    waiting: str  # hash
    lanes: str  # hash
    held: str  # hash
    spent: str  # hash


@dataclass(frozen=True, slots=True)
class ClaimArguments:
    """The arguments of a claim, before those of its queues. Times are seconds."""

    room: int
    """Most jobs (``preemption.Room.free``)."""
    bytes: int
    """Most bytes of messages; at least one message is claimed whatever its size."""
    lease_s: float
    owner: str
    """A token that is new for every claim."""
    idle: int
    """1 if the worker holds nothing, so that it may get a suspect."""
    suspects: int
    """Where they are (``trials.Order``)."""
    full: int
    """Jobs that make a full batch (``window.HoldLimits``, as the next three)."""
    busy_s: float
    run_s: float
    per_job_s: float
    share: int
    """Most jobs of a tenant at a time (``fairness.quantum``)."""
    policies: str
    """Weights and quotas of tenants as JSON (``quotas.lua``)."""
    preemptible: int
    """Most jobs of preemptible tiers (``preemption.Room``, as the next)."""
    preempting: int


@dataclass(frozen=True, slots=True)
class QueueArguments:
    """The arguments of one queue of a claim."""

    head_start: float
    """Its rank (``priority.Rank``), as the next two."""
    growth: float
    late: float
    hold_s: float
    """For how long its head may be held."""
    yields: int
    """1 if its tier is preemptible."""


def flatten(keys: ClaimKeys, names: list[str], arguments: ClaimArguments, queues: list[QueueArguments]) -> list[Any]:
    """The number of keys, the keys, and the arguments of ``EVALSHA``; ``names`` are the queues' keys."""
    flat = [*_keys(keys), *names]
    return [len(flat), *flat, *_arguments(arguments), *chain.from_iterable(map(_queue, queues))]


# Not dataclasses.astuple, which copies every value: this runs at every claim.
_keys = attrgetter(*(each.name for each in fields(ClaimKeys)))
_arguments = attrgetter(*(each.name for each in fields(ClaimArguments)))
_queue = attrgetter(*(each.name for each in fields(QueueArguments)))


def _lua() -> str:
    """Lua text that makes the tables ``key``, ``arg`` and ``queues`` from KEYS and ARGV. Numbers are numbers."""
    keys, arguments, queue = fields(ClaimKeys), fields(ClaimArguments), fields(QueueArguments)

    def number(name: str, of: Any) -> str:
        return name if of.type == "str" else f"tonumber({name})"

    key_of = ", ".join(f"{each.name} = KEYS[{nth}]" for nth, each in enumerate(keys, 1))
    argument_of = ", ".join(f"{each.name} = {number(f'ARGV[{nth}]', each)}" for nth, each in enumerate(arguments, 1))
    queue_of = ", ".join(f"{each.name} = {number(f'ARGV[at + {nth}]', each)}" for nth, each in enumerate(queue, 1))
    return (
        f"local key = {{ {key_of} }}\n"
        f"local arg = {{ {argument_of} }}\n"
        "local queues = {}\n"
        f"for i = {len(keys) + 1}, #KEYS do\n"
        f"  local at = {len(arguments)} + (i - {len(keys) + 1}) * {len(queue)}\n"
        f"  queues[#queues + 1] = {{ name = KEYS[i], {queue_of} }}\n"
        "end\n"
    )


LUA = _lua()
