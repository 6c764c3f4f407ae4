"""A tenant that asks 400 times a second and hangs up at once, and bodies of a tenant that take long to decode."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bars import Bar

from .stage import Fleet, Say, grown, quiet

SECONDS, QUICK_S = 15.0, 4.0


def run(folder: Path, say: Say, *, quick: bool) -> list[Bar]:
    """Each beside a neighbour, on one gateway and one worker."""
    bars = []
    with Fleet(folder) as fleet:
        neighbour, key = fleet.neighbour(), fleet.key("alice")
        quiet(neighbour, 1.0)
        for name in ("hang-up", "bodies"):
            without = quiet(neighbour, QUICK_S if quick else SECONDS / 2)
            with fleet.attack(name, key) as process:
                within, _ = fleet.during(neighbour, process, QUICK_S if quick else SECONDS)
            bars.append(grown(f"a tenant's {name}", without, within))
            say(f"   {name}: {bars[-1].note}, {len(within.refused)} refused")
            bars.append(Bar(f"a tenant's {name}: requests of a neighbour refused", len(within.refused), 0))
    return bars
