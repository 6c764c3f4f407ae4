"""Clairvoyant schedules: the number of serving replicas in each slot of ten seconds, all requests known beforehand.

The best is not known. Candidates come from a dynamic program over a fluid model of the fleet: its state is how many
replicas serve and how many requests are with them, its cost the device seconds, those of loading and draining included,
plus a price for each request that finds all slots taken. Every candidate is then replayed in the simulator, with real
requests and real slots, and counts for what it does there. The cheapest that misses no more than is allowed is cut down
step by step, a random piece of it at a time, for as long as it still does.

What is left is a schedule that works, so no bound from below: the linear program of
``simulator/results/clairvoyant.py`` is
one, and the truth is between them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autoscaler.sizing.size import Size

from . import azure
from .azure import DEVICES, LOAD_S, SEQUENCES, SERVICE

if TYPE_CHECKING:
    from autoscaler.observation import Memory, Observation
    from simulator.traces.trace import Trace

Array = np.ndarray[Any, Any]
Schedule = tuple[int, ...]

SLOT_S = 10.0
LOADING = int(LOAD_S / SLOT_S)
DRAIN_S = 20.0
"""Of a replica that has a full batch to finish."""
MOST = 1200
"""Requests in the fleet, at most, in the fluid model."""
FILL = (0.35, 0.8, 1.2, 1.6, 2.5)
"""Load of the slots above which a request counts as missed; above 1, the excess waits."""
PRICES = (0.15, 0.3, 0.6, 1.0, 2.0)
"""Of a missed request, in device seconds."""
PIECES = (1, 2, 3, 6, 12, 24)
"""Slots that are cut from one replica at a time."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A policy that knows what to do. Time begins one load time before the first request."""

    schedule: Schedule
    name: str = "clairvoyant"

    def sizes(self, seen: Observation, memory: Memory) -> tuple[Mapping[str, Size], Memory]:
        """Those that serve now, and those that have to load now to serve when they shall."""
        now = int(seen.now / SLOT_S + 1e-9)
        last = len(self.schedule) - 1
        here = min(now, last)
        ahead = range(here + 1, min(here + LOADING, last) + 1)
        loading = sum(max(0, self.schedule[slot] - self.schedule[slot - 1]) for slot in ahead)
        # Replicas that serve after the last slot have requests to finish.
        replicas = self.schedule[here] + loading if now <= last else max(1, self.schedule[last])
        return {name: Size(replicas, "as it was known to be best", 0.0) for name in seen.demands}, memory


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule and what it did when it was replayed."""

    schedule: Schedule
    hours: float
    missed: int


def replay(name: str, trace: Trace, schedule: Schedule) -> Found:
    """What a schedule does with the requests."""
    found = play(name, trace, schedule)
    return Found(schedule, found.hours, found.missed)


def play(name: str, trace: Trace, schedule: Schedule) -> azure.Run:
    """The run of a schedule."""
    later = replace(trace, at=[at + LOAD_S for at in trace.at])
    settings = azure.fleet(scaling={"idle_s": 0.0, "up_cooldown_s": 0.0})
    return azure.run(name, later, Scheduled(schedule), settings)


def cheapest(
    name: str, trace: Trace, missed: int, cuts: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Found:
    """The cheapest schedule found that misses at most ``missed`` requests.

    Args:
        cuts: number of attempts to cut a piece off.
    """
    found = [replay(name, trace, one) for one in candidates(trace)]
    found.append(replay(name, trace, tuple([DEVICES] * (int((trace.lasts_s + LOAD_S) / SLOT_S) + 1))))
    best = min((one for one in found if one.missed <= missed), key=lambda one: one.hours)
    tell(f"{len(found)} candidates, the best {best.hours:.3f} h")
    rng = random.Random(seed)
    for _ in range(cuts):
        shorter = _cut(rng, best.schedule)
        if shorter is None:
            continue
        tried = replay(name, trace, shorter)
        if tried.missed <= missed and tried.hours < best.hours:
            best = tried
    return best


def _cut(rng: random.Random, schedule: Schedule) -> Schedule | None:
    """One replica fewer for some slots, or one slot later or earlier; None when that changes nothing."""
    begin, slots = rng.randrange(len(schedule)), rng.choice(PIECES)
    piece = [max(0, replicas - 1) for replicas in schedule[begin : begin + slots]]
    # What is cut here may be worth more somewhere else.
    elsewhere = [*schedule[:begin], *piece, *schedule[begin + slots :]]
    if rng.random() < 0.3:
        other = rng.randrange(len(schedule))
        for slot in range(other, min(other + max(1, slots // 2), len(schedule))):
            elsewhere[slot] = min(DEVICES, elsewhere[slot] + 1)
    found = tuple(elsewhere)
    return None if found == schedule else found


def candidates(trace: Trace) -> Iterator[Schedule]:
    """Schedules of the fluid model, each once."""
    told: set[Schedule] = set()
    requests, works = _arrivals(trace)
    for fill in FILL:
        for price in PRICES:
            one = _plan(trace, requests, works, fill, price)
            if one not in told:
                told.add(one)
                yield one


def _arrivals(trace: Trace) -> tuple[Array, Array]:
    """By slot: requests, and the same in requests of the mean size."""
    slots = int((trace.lasts_s + LOAD_S) / SLOT_S) + 1 + LOADING
    seconds = np.array([SERVICE.device_s(i, o, SEQUENCES) for i, o in zip(*_lengths(trace), strict=True)])
    place = ((np.array(trace.at) + LOAD_S) / SLOT_S).astype(int)
    counts = np.bincount(place, minlength=slots)
    works = np.bincount(place, weights=seconds, minlength=slots) / seconds.mean()
    return counts, np.diff(np.floor(np.concatenate([[0.0], works.cumsum()]))).astype(int)


def _lengths(trace: Trace) -> tuple[Sequence[int], Sequence[int]]:
    return trace.input_tokens, trace.output_tokens


def _plan(trace: Trace, requests: Array, works: Array, fill: float, price: float) -> Schedule:
    """The best schedule of the fluid model, backwards from its end (Bellman)."""
    inputs, outputs = _lengths(trace)
    prompt_s, steps = float(np.mean(inputs)) * SERVICE.prompt_token_s, float(np.mean(outputs))
    held, serving = np.arange(MOST + 1), np.arange(DEVICES + 1)
    change = serving[None, :] - serving[:, None]
    moving_s = np.maximum(0, change) * LOAD_S + np.maximum(0, -change) * DRAIN_S
    room = (serving * SEQUENCES * fill)[:, None]
    least = np.broadcast_to(held * 2.0, (DEVICES + 1, MOST + 1))
    choices = np.zeros((len(works), DEVICES + 1, MOST + 1), np.int8)
    ends = np.zeros((len(works), DEVICES + 1, MOST + 1), np.int16)
    for slot in range(len(works) - 1, -1, -1):
        shared = np.clip((held[None, :] + works[slot] / 2) / np.maximum(serving, 1)[:, None], 1, SEQUENCES)
        done = serving[:, None] * SLOT_S / (prompt_s + steps * (SERVICE.step_s / shared + SERVICE.sequence_s))
        after = held[None, :] + works[slot] - done
        low, high = np.minimum(held[None, :], after), np.maximum(held[None, :], after)
        missed = requests[slot] * np.clip((high - room) / np.maximum(high - low, 1e-9), 0, 1)
        missed[0] = requests[slot]
        left = np.clip(np.round(after), 0, MOST).astype(int)
        here = serving[:, None] * SLOT_S + price * missed + np.take_along_axis(least, left, axis=1)
        here += np.where(after > MOST, 1e6, 0.0)
        if slot < LOADING:
            here[1:] += 1e7  # no replica serves before the first can have loaded
        total = moving_s[:, :, None] + here[None, :, :]
        choices[slot], ends[slot] = total.argmin(axis=1), left
        least = total.min(axis=1)
    replicas, there, schedule = 0, 0, []
    for slot in range(len(works)):
        replicas = int(choices[slot, replicas, there])
        there = int(ends[slot, replicas, there])
        schedule.append(replicas)
    return tuple(schedule)
