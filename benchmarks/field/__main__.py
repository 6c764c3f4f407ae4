"""``python -m benchmarks.field``: what goes wrong around a fleet, done to a real one.

Processes, Redis servers, pynvml and HTTP are real. Stood in for are the driver's library (``benchmarks/devices``), the
clock (a preloaded library) and the servers of models (``tests/openai_stub.py``). Prints what happens, a table, and, as
its last line, one JSON object. Exit code 0 when every figure reaches its bar. Takes about ten minutes.
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

from . import answers, clock, devices, servers, spread, streams

SITUATIONS: dict[str, Callable[..., list[Bar]]] = {
    "streams": streams.run,
    "clock": clock.run,
    "devices": devices.run,
    "answers": answers.run,
    "servers": servers.run,
    "spread": spread.run,
}


def main() -> int:
    """Play the situations, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.field", description=__doc__)
    parser.add_argument("--only", default=",".join(SITUATIONS), help="comma-separated; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="less of each; misses no bar for that")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in SITUATIONS]:
        parser.error(f"no situation {unknown[0]!r}; there are {', '.join(SITUATIONS)}")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-field-"))
    began = time.monotonic()
    bars: list[Bar] = []
    for name in chosen:
        say(f"{name}: {(SITUATIONS[name].__doc__ or '').splitlines()[0]}")
        try:
            bars += SITUATIONS[name](folder / name, say, quick=options.quick)
        except Exception:  # the others are still worth playing
            traceback.print_exc()
            bars.append(Bar(f"{name}: played to its end", None, 1, "higher"))
    well = all(bar.ok for bar in bars)
    if options.keep or not well:
        say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude("field", bars, began, quick=options.quick)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
