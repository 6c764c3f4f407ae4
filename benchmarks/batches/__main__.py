"""``python -m benchmarks.batches``: a million lines through the Batch API, and 20,000 while everything is killed.

Prints its progress, a table, and, as its last line, one JSON object. Exit code 0 when every figure reaches its bar.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bars import Bar, conclude

from . import kills, million


def main() -> int:
    """Run what is asked for."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a SIGTERM leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-batches-"))
    began = time.monotonic()
    bars: list[Bar] = []
    try:
        if "memory" in options.only:
            _say(f"{options.lines} lines through gateway, batch process and one worker of the echo engine")
            bars += million.run(folder / "memory", options.lines, _say)
        if "kills" in options.only:
            _say(f"{options.killed_lines} lines, and {options.kills} kills")
            bars += kills.run(folder / "kills", options.seed, options.killed_lines, options.kills, _say)
    except BaseException:
        _say(f"the logs are in {folder}")
        raise
    if options.keep:
        _say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude("batches", bars, began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--only", choices=("memory", "kills"), nargs="+", default=["memory", "kills"])
    parser.add_argument("--lines", type=int, default=1_000_000, help="of the measurement of memory")
    parser.add_argument("--killed-lines", type=int, default=20_000, help="of the batch under fire")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the kills")
    parser.add_argument("--keep", action="store_true", help="keep the logs and files")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
