"""One worker and its queue: arrivals in, batches out.

The clock goes on by what each batch takes, and jumps over what is idle: a real device is measured where it works, and
not waited for where it does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .policies import Policy, View

EPSILON_S = 1e-9
TURN = 25
"""Jobs that a policy serves before the next one goes on, where they share a real device."""

Seconds = Callable[[int, int], float]
"""Runs the jobs from the first number to before the second as one batch, and tells what it took."""


@dataclass(slots=True)
class Played:
    """What became of the jobs: how long each took from its arrival, and the device's time in batches, in seconds."""

    latencies: list[float] = field(default_factory=list)
    device_s: float = 0.0
    batches: int = 0

    def attained(self, target_s: float) -> float:
        """Share of the jobs that were answered in time."""
        return sum(latency <= target_s for latency in self.latencies) / len(self.latencies)


def play(arrivals: Sequence[float], policy: Policy, seconds: Seconds) -> Played:
    """Serve jobs that arrive at these times, oldest first."""
    played = Played()
    for _ in _batches(arrivals, policy, seconds, played):
        pass
    return played


def play_in_turns(arrivals: Sequence[float], policies: Mapping[str, Policy], seconds: Seconds) -> dict[str, Played]:
    """Each policy serves these jobs, with all others on one device, in turns: what slows the machine slows them all."""
    found = {name: Played() for name in policies}
    batches = {name: _batches(arrivals, policy, seconds, found[name]) for name, policy in policies.items()}
    for edge in range(TURN, len(arrivals) + TURN, TURN):
        for name, played in found.items():
            while len(played.latencies) < min(edge, len(arrivals)):
                next(batches[name])
    return found


def _batches(arrivals: Sequence[float], policy: Policy, seconds: Seconds, played: Played) -> Iterator[None]:
    """Serve the jobs, and stop after each batch."""
    now, taken, seen, busy = 0.0, 0, 0.0, False
    while taken < len(arrivals):
        idle = arrivals[taken] > now
        if idle:
            now = seen = arrivals[taken]
        arrived = bisect_right(arrivals, now)
        occupied, busy = busy and not idle, True
        wait = policy.wait(View(now, arrived - taken, arrivals[taken], seen, arrived, occupied))
        if wait > EPSILON_S:
            until = now + wait
            if policy.watches and taken + policy.most <= len(arrivals):
                until = min(until, arrivals[taken + policy.most - 1])
            now = max(now, until)
            continue
        last = min(arrived, taken + policy.most)
        begun, now = now, now + seconds(taken, last)
        if not policy.watches:
            _look(arrivals, policy, taken, last, begun, now, seen)
        policy.ran(last - taken, now - begun)
        played.device_s += now - begun
        played.batches += 1
        played.latencies += [now - arrival for arrival in arrivals[taken:last]]
        if last == arrived and last < len(arrivals):  # else the queue has not been empty since, as claim.lua counts
            seen = arrivals[last]
        taken = last
        yield


def _look(
    arrivals: Sequence[float], policy: Policy, taken: int, last: int, begun: float, ended: float, seen: float
) -> None:
    """The looks of a worker while its device is busy: at the first that comes, and then as its window says. What is
    due by then it claims ahead, as long as it has room for a batch, and looks at the next that comes."""
    running, room, looked = last - taken, last + policy.most, begun
    while last < min(room, len(arrivals)):
        now = max(looked, arrivals[last])
        if arrivals[last] > looked:
            seen = now
        while True:
            if now >= ended:
                return
            arrived = bisect_right(arrivals, now)
            wait = policy.wait(View(now, arrived - last, arrivals[last], seen, arrived, True, running, begun))
            if wait <= EPSILON_S:
                break
            now += wait
        last, looked = arrived, now
