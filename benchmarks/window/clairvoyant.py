"""The clairvoyant optimum: all arrivals are known, and parted into batches so that the fewest jobs are late.

Among those schedules it takes one with the least device time. A batch of known members begins when the device is free
and the last of them has come: there is nothing to wait for. So what can be reached at a job is a set of (late, batches,
device free at), of which those matter that no other is better than in all three. Jobs run in the order of their
arrival, as for all the others. At most ``KEPT`` are kept at each job, by late and then by batches; where there are
more, it is a schedule that a worker could follow if it knew the future, but perhaps not the very best one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from .grid import MOST, Line
from .play import Played

KEPT = 16

_State = tuple[int, int, float]


def clairvoyant(arrivals: Sequence[float], line: Line, target_s: float) -> Played:
    """What becomes of the jobs at best. Latencies are not told, only how many are late."""
    seconds = [line.seconds(jobs) for jobs in range(MOST + 1)]
    reached: list[list[_State]] = [[] for _ in range(len(arrivals) + 1)]
    reached[0].append((0, 0, 0.0))
    for first, came in enumerate(arrivals):
        states, reached[first] = _best(reached[first], came), []
        for late, batches, free_at in states:
            for last in range(first + 1, min(first + MOST, len(arrivals)) + 1):
                begun = max(free_at, arrivals[last - 1])
                if begun > max(free_at, came) + target_s:
                    break
                ended = begun + seconds[last - first]
                more = bisect_left(arrivals, ended - target_s, first, last) - first
                reached[last].append((late + more, batches + 1, ended))
    late, batches, _ = min(reached[-1])
    played = Played(device_s=line.per_job * len(arrivals) + line.fixed * batches, batches=batches)
    played.latencies = [2 * target_s] * late + [0.0] * (len(arrivals) - late)
    return played


def _best(states: list[_State], came: float) -> list[_State]:
    """Those that no other is better than, by late and batches."""
    kept: list[_State] = []
    for late, batches, free_at in sorted((late, batches, max(free_at, came)) for late, batches, free_at in states):
        if all(batches < other or free_at < then for _, other, then in kept):
            kept.append((late, batches, free_at))
            if len(kept) == KEPT:
                break
    return kept
