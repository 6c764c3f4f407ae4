"""Weighted fair share of a queue among its tenants: the Virtual Token Counter.

Y. Sheng et al., Fairness in Serving Large Language Models, OSDI 2024 (https://arxiv.org/abs/2401.00588), algorithms 2
and 4. Each tenant has a counter: the tokens it was served, divided by its weight. Of the tenants with queued jobs the
one with the least counter goes next. A tenant that comes back is lifted to the least counter of the active tenants, or,
if there is none, to that of the last that left, so that no tenant saves up service by being idle.

Input tokens are charged at the claim, by the length of the message as the server sees it; the producer's statements do
not matter. Output tokens are charged at the claim as well, by the queue's mean output. Both are corrected by the result
(``settle``). The paper proves that the service of two continuously active tenants then differs by at most ``bound``.

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
"""Price of an output token; both prices are the paper's."""
ENVELOPE_BYTES = 900
"""Bytes of a message beside its input."""
BYTES_PER_TOKEN = 16 / 3
"""Bytes of a message for each token: about four characters, in base64."""
QUANTUM = 4
"""In a claim with room for n jobs, a tenant gets at most n / QUANTUM at a time, rounded up, while others are active: a
claim of 32 reads 4 lanes rather than 32, and no tenant is ahead by more than a part of one batch."""

_USAGE = re.compile(rb'"usage": ?\{([^{}]*)\}')
_TOKENS = re.compile(rb'"(input|output)_tokens": ?(\d{1,12})\b')


@dataclass(slots=True)
class Counters:
    """The counters of one queue. A tenant is active while it has queued jobs."""

    active: dict[str, float] = field(default_factory=dict)
    departed: dict[str, float] = field(default_factory=dict)
    left: float = 0.0
    """The counter of the last tenant that left, when no other was active."""

    def enter(self, tenant: str) -> None:
        """The tenant becomes active."""
        if tenant not in self.active:
            floor = min(self.active.values()) if self.active else self.left
            self.active[tenant] = max(self.departed.pop(tenant, 0.0), floor)

    def leave(self, tenant: str) -> None:
        """The tenant has no queued jobs any more."""
        counter = self.departed[tenant] = self.active.pop(tenant)
        if not self.active:
            self.left = counter

    def charge(self, tenant: str, service: float) -> None:
        """Charge a tenant: tokens divided by weight; negative to correct an earlier charge."""
        for counters in (self.active, self.departed):
            if tenant in counters:
                counters[tenant] += service
                return

    def next(self, before: Mapping[str, float] = MappingProxyType({})) -> str:
        """The active tenant that goes next; among equals the first in the sorted set as it was before the claim.

        Args:
            before: the counters before the claim, of the tenants that it has charged.
        """
        if len(self.active) == 1:
            return next(iter(self.active))
        return min(self.active.items(), key=lambda each: (each[1], before.get(*each), each[0].encode()))[0]


def price(input_tokens: float, output_tokens: float) -> float:
    """The price of a job, in tokens."""
    return INPUT * input_tokens + OUTPUT * output_tokens


def expected(message_bytes: int, output_tokens: float) -> int:
    """The charge of a job at its claim, by the length of its message and the queue's mean output."""
    return math.floor(price(max(1.0, (message_bytes - ENVELOPE_BYTES) / BYTES_PER_TOKEN), output_tokens))


def used(result: bytes) -> tuple[int, int] | None:
    """Input and output tokens in a stored result; None if it has none."""
    last = result.rfind(b'"usage"')  # what comes before it is the model's output
    usage = _USAGE.match(result, last) if last >= 0 else None
    found = {name: int(tokens) for name, tokens in _TOKENS.findall(usage[1])} if usage else {}
    return (found.get(b"input", 0), found.get(b"output", 0)) if found else None


def bound(input_tokens: float, batch_tokens: float) -> float:
    """The largest difference in service between two continuously active tenants (theorem 4.4).

    Args:
        input_tokens: of the largest input.
        batch_tokens: that all workers' batches together can hold.
    """
    return 2 * max(INPUT * input_tokens, OUTPUT * batch_tokens)


def quantum(room: int) -> int:
    """Most jobs of one tenant at a time, while others are active, in a claim with that much room."""
    return -(-room // QUANTUM)
