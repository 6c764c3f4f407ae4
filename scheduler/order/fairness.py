"""Weighted fair share of a queue among its tenants: the Virtual Token Counter.

Y. Sheng et al., Fairness in Serving Large Language Models, OSDI 2024 (https://arxiv.org/abs/2401.00588), algorithms 2
and 4. Each tenant has a counter of the tokens that it was served, over its weight. Who has jobs waiting and the least
counter goes next. A tenant that comes back is lifted to the least counter of those that wait, or, if nobody waits,
to that of the last that left: nobody saves up service by not asking for it.

Input tokens are charged when a job is taken, as the server sees them, from the length of the message: what its
producer says of it changes nothing. Output tokens are charged then as well, as many as a job of the queue makes on
average, and set right by what the result says when it is there (``settle``), as is the input. The paper proves that
the service of two tenants that wait all the time then differs by at most ``bound``.

``claim.lua`` does the same on the queues in Redis; ``tests/integration/test_order_script.py`` compares them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

INPUT = 1.0
"""Price of an input token."""
OUTPUT = 2.0
"""Price of an output token; both as in the paper, after what services charge."""
ENVELOPE_BYTES = 900
"""What a message takes beside its input."""
BYTES_PER_TOKEN = 16 / 3
"""Of a message: about four characters, in base64."""
QUANTUM = 4
"""Of a claim with room for n jobs, one tenant gets at most n / QUANTUM at a time, rounded up, while others wait: so a
claim of 32 looks into 4 lanes, not 32, and no tenant is further ahead than a part of one batch."""

_USAGE = re.compile(rb'"usage": ?\{([^{}]*)\}')
_TOKENS = re.compile(rb'"(input|output)_tokens": ?(\d{1,12})\b')


@dataclass(slots=True)
class Counters:
    """The counters of one queue. A tenant is active while it has jobs waiting."""

    active: dict[str, float] = field(default_factory=dict)
    departed: dict[str, float] = field(default_factory=dict)
    left: float = 0.0
    """Of the last tenant that left, when nobody else waited."""

    def enter(self, tenant: str) -> None:
        """The tenant has jobs waiting from now on."""
        if tenant not in self.active:
            floor = min(self.active.values()) if self.active else self.left
            self.active[tenant] = max(self.departed.pop(tenant, 0.0), floor)

    def leave(self, tenant: str) -> None:
        """The tenant has none any more."""
        counter = self.departed[tenant] = self.active.pop(tenant)
        if not self.active:
            self.left = counter

    def charge(self, tenant: str, service: float) -> None:
        """The tenant was served: tokens over weight; below 0, to set an earlier charge right."""
        for counters in (self.active, self.departed):
            if tenant in counters:
                counters[tenant] += service
                return

    def next(self, before: Mapping[str, float] = MappingProxyType({})) -> str:
        """The active tenant that goes next; of equals, the first in a sorted set as it was when the claim began.

        Args:
            before: the counters that tenants had then, of those that the claim has charged.
        """
        if len(self.active) == 1:
            return next(iter(self.active))
        return min(self.active.items(), key=lambda each: (each[1], before.get(*each), each[0].encode()))[0]


def price(input_tokens: float, output_tokens: float) -> float:
    """What a job costs, in tokens."""
    return INPUT * input_tokens + OUTPUT * output_tokens


def expected(message_bytes: int, output_tokens: float) -> int:
    """What a job that is taken is charged: its message's length is known, its output is what others made."""
    return math.floor(price(max(1.0, (message_bytes - ENVELOPE_BYTES) / BYTES_PER_TOKEN), output_tokens))


def used(result: bytes) -> tuple[int, int] | None:
    """Input and output tokens that a stored result tells of; None if it tells of none."""
    last = result.rfind(b'"usage"')  # before it is what the model said
    usage = _USAGE.match(result, last) if last >= 0 else None
    found = {name: int(tokens) for name, tokens in _TOKENS.findall(usage[1])} if usage else {}
    return (found.get(b"input", 0), found.get(b"output", 0)) if found else None


def bound(input_tokens: float, batch_tokens: float) -> float:
    """How far apart the service of two tenants can get that both wait all the time (theorem 4.4).

    Args:
        input_tokens: of the largest input.
        batch_tokens: that all workers' batches together can hold.
    """
    return 2 * max(INPUT * input_tokens, OUTPUT * batch_tokens)


def quantum(room: int) -> int:
    """Most jobs of one tenant at a time, while others wait, in a claim with so much room."""
    return -(-room // QUANTUM)
