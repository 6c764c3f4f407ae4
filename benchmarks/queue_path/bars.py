"""From what was measured to the bars: ratios within a round, and their medians over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.bars import Bar

from .roster import OURS, STOCK
from .survival import Survival
from .turn import Turn

Round = Mapping[str, Turn]
"""What each contestant did in one round, by name."""

CPU_OVER_STOCK = 5.0
SUBMITTED_PER_S = 10_000.0
SUBMITTED_OVER_STOCK = 5.0
INPUTS_PER_S = 100_000.0
HEARD = 0.99
"""Least share of our jobs whose events a monitor must have heard, or our CPU time counts as not measured."""


def bars(
    rounds: Sequence[Round],
    asked_s: Mapping[str, Sequence[float]],
    survivals: Mapping[str, Survival],
    inputs_per_s: Sequence[float],
) -> list[Bar]:
    """One bar for each figure that was promised. What was not measured is not ok."""
    heard = bool(rounds) and all(OURS in each and (each[OURS].heard or 0) >= HEARD for each in rounds)
    peers = [name for name in (rounds[0] if rounds else ()) if name != OURS]
    return [
        _cpu_over_stock(rounds, peers, heard),
        _cpu_over_survivors(rounds, peers, survivals, heard),
        _round_trip(asked_s, survivals),
        _submitted(rounds, peers),
        Bar(
            "inputs per second, 256 a job, one worker",
            round(statistics.median(inputs_per_s)) if inputs_per_s else None,
            INPUTS_PER_S,
            "higher",
        ),
    ]


def ratio(rounds: Sequence[Round], over: str, under: str, figure: Callable[[Turn], float]) -> float:
    """The median over the rounds of one's figure over another's in the same round."""
    return statistics.median(figure(each[over]) / figure(each[under]) for each in rounds)


def _cpu(turn: Turn) -> float:
    return turn.cpu_s


def _cpu_over_stock(rounds: Sequence[Round], peers: Sequence[str], heard: bool) -> Bar:
    name = f"worker CPU per job, {STOCK} over ours"
    if STOCK not in peers or not heard:
        return Bar(name, None, CPU_OVER_STOCK, "higher", "" if heard else "our events were not heard")
    return Bar(name, round(ratio(rounds, STOCK, OURS, _cpu), 2), CPU_OVER_STOCK, "higher")


def _cpu_over_survivors(
    rounds: Sequence[Round], peers: Sequence[str], survivals: Mapping[str, Survival], heard: bool
) -> Bar:
    name = "worker CPU per job, the least of the peers that survive kill -9 over ours"
    alive, note = _alive(peers, survivals)
    if not alive or not heard:
        return Bar(name, None, 1.0, "higher", note if heard else "our events were not heard")
    value, peer = min((ratio(rounds, peer, OURS, _cpu), peer) for peer in alive)
    return Bar(name, round(value, 2), 1.0, "higher", peer)


def _round_trip(asked_s: Mapping[str, Sequence[float]], survivals: Mapping[str, Survival]) -> Bar:
    """Against the peers that survive kill -9; others save a round trip by recording no claim; the note has them."""
    name = "round trip p50, ours over the best's of the peers that survive kill -9"
    p50_s = {peer: statistics.median(took_s) for peer, took_s in asked_s.items()}
    ours = p50_s.pop(OURS, None)
    alive, note = _alive(list(p50_s), survivals)
    if not alive or ours is None:
        return Bar(name, None, 1.0, note=note)
    best, fastest = min(alive, key=p50_s.__getitem__), min(p50_s, key=p50_s.__getitem__)
    note = best if fastest == best else f"{best}; {ours / p50_s[fastest]:.2f} times {fastest}'s"
    return Bar(name, round(ours / p50_s[best], 2), 1.0, note=note)


def _alive(peers: Sequence[str], survivals: Mapping[str, Survival]) -> tuple[list[str], str]:
    """The peers that survive, none unless all were killed; and what is to be said of them."""
    unknown = [peer for peer in peers if peer not in survivals]
    if unknown or not peers:
        return [], f"not killed: {len(unknown)} of {len(peers)} peers"
    alive = [peer for peer in peers if survivals[peer].survives]
    return alive, ", ".join(alive) or "none survives"


def _submitted(rounds: Sequence[Round], peers: Sequence[str]) -> Bar:
    """Either of two figures suffices, so the better of the two, each as a share of its bar."""
    name = f"submit_many, of {SUBMITTED_PER_S:,.0f}/s or of {SUBMITTED_OVER_STOCK:g} times apply_async"
    if OURS not in (rounds[0] if rounds else ()):
        return Bar(name, None, 1.0, "higher")
    rate = statistics.median(each[OURS].rates["enqueue"] for each in rounds)
    shares, note = [rate / SUBMITTED_PER_S], f"{rate:,.0f}/s"
    if STOCK in peers:
        times = ratio(rounds, OURS, STOCK, lambda turn: turn.rates["enqueue"])
        shares.append(times / SUBMITTED_OVER_STOCK)
        note += f", {times:.1f} times"
    return Bar(name, round(max(shares), 2), 1.0, "higher", note)
