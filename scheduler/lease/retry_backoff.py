"""Retry back-off: exponential, with jitter.

Half of each delay is fixed and half is random ("equal jitter",
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that jobs that failed together do not
come back together.
"""

import random

FIRST_S = 1.0
LONGEST_S = 60.0


def delays(retries: int, chance: random.Random | None = None) -> list[float]:
    """The delay before each retry, in seconds."""
    draw = (chance or random).random
    longest = (min(LONGEST_S, FIRST_S * 2**n) for n in range(retries))
    return [delay * (0.5 + 0.5 * draw()) for delay in longest]
