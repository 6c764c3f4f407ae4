"""Benchmarks of several situations, each played by itself and judged by its bars."""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from .bars import Bar, conclude

Situation = Callable[..., list[Bar]]
"""Called with a folder of its own, :func:`say`, and ``quick`` by name. Its docstring begins with what it does."""


def play(benchmark: str, description: str, situations: Mapping[str, Situation]) -> int:
    """Play the situations that the command line names, one after the other. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--only", default=",".join(situations), help="comma-separated; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="less of each; misses no bar for that")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in situations]:
        parser.error(f"no situation {unknown[0]!r}; there are {', '.join(situations)}")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix=f"stoker-{benchmark}-"))
    began = time.monotonic()
    bars: list[Bar] = []
    for name in chosen:
        say(f"{name}: {(situations[name].__doc__ or '').splitlines()[0]}")
        try:
            bars += situations[name](folder / name, say, quick=options.quick)
        except Exception:  # the others are still worth playing
            traceback.print_exc()
            bars.append(Bar(f"{name}: played to its end", None, 1, "higher"))
    if options.keep or not all(bar.ok for bar in bars):
        say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude(benchmark, bars, began, quick=options.quick)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)
