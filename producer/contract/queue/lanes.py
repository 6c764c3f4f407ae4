"""What Lua (``lanes.lua``) and Python share about the lanes of tenants."""

import math

DUE = 17
"""Characters of a due time before an entry's separator and message: Unix seconds as ``%.6f``."""
SEPARATORS = (b"|", b"!")
"""What follows the due time of an entry. Of what a producer has pushed without one, all is the message."""
REMEMBERED = 10_000
"""Tenants that left whose counters are kept; beyond that, those are forgotten that would be lifted anyway."""


def jobs_in_lanes(stored: bytes | None) -> int:
    """Jobs in a queue's lanes, as producers count them, who may miscount; none where they count fewer."""
    return max(0, int(stored or 0))


def instant(stored: bytes | None, now: float) -> float:
    """Since when, as a producer has written it down; now, if it has written no instant, or a later one."""
    try:
        since = float(stored or now)
    except ValueError:
        return now
    return min(since, now) if math.isfinite(since) else now
