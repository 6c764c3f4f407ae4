"""Strangers without a key: what has no end, what is heavy, and what is never finished."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bars import Bar

from .stage import MEMORY_MB, Fleet, Say, grown, quiet

ATTACKS = ("pipeline", "headers", "header", "url", "trailers", "bodies", "half-heads", "trickle", "unread")
DESCRIPTORS = 256
SECONDS, QUICK_S = 15.0, 4.0


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """One attack after the other on a gateway of 256 descriptors."""
    bars, refused, memory = [], [], 0.0
    with Fleet(folder, descriptors=DESCRIPTORS) as fleet:
        neighbour = fleet.neighbour()
        quiet(neighbour, 1.0)
        for name in ATTACKS:
            without = quiet(neighbour, QUICK_S if quick else SECONDS / 2)
            with fleet.attack(name) as process:
                within, most = fleet.during(neighbour, process, QUICK_S if quick else SECONDS)
            bars.append(grown(f"strangers, {name}", without, within))
            memory = max(memory, most)
            refused += without.refused + within.refused
            say(f"   {name}: {bars[-1].note}, {len(within.refused)} refused, gateway at {most:.0f} MB")
    return [
        *bars,
        Bar("strangers: requests of a tenant refused", len(refused), 0, note="; ".join(refused[:2])),
        Bar("strangers: memory of the gateway, MB", round(memory), MEMORY_MB),
    ]
