"""``python -m benchmarks.walls``: attacks of strangers and tenants on a real fleet, each with a neighbour beside.

Processes, Redis and HTTP are real; the engine is an echo, or the stub of a model's server. Attackers run on the same
machine and take what the fleet leaves of it. Prints what happens, a table, and, as its last line, one JSON object. Exit
code 0 when every figure reaches its bar. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.bars import Bar, conclude

from . import batches, hang_ups, preemption, strangers, webhooks

WALLS: dict[str, Callable[..., list[Bar]]] = {
    "strangers": strangers.run,
    "hang-ups": hang_ups.run,
    "batches": batches.run,
    "webhooks": webhooks.run,
    "preemption": preemption.run,
}


def main() -> int:
    """Attack, one wall after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walls", description=__doc__)
    parser.add_argument("--only", default=",".join(WALLS), help="comma-separated; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="less of each; misses no bar for that")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in WALLS]:
        parser.error(f"no wall {unknown[0]!r}; there are {', '.join(WALLS)}")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-walls-"))
    began = time.monotonic()
    bars: list[Bar] = []
    for name in chosen:
        say(f"{name}: {(sys.modules[WALLS[name].__module__].__doc__ or '').splitlines()[0]}")
        try:
            bars += WALLS[name](folder / name, say, quick=options.quick)
        except Exception:  # the others are still worth attacking
            traceback.print_exc()
            bars.append(Bar(f"{name}: attacked to its end", None, 1, "higher"))
    well = all(bar.ok for bar in bars)
    if options.keep or not well:
        say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude("walls", bars, began, quick=options.quick)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
