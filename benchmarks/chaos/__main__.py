"""``python -m benchmarks.chaos``: break the fleet in every way there is, and count what was lost.

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
from types import FrameType
from typing import Any

from benchmarks.bars import Bar, conclude

from . import drains, hostile, kills, silence, stock

SCENARIOS = {1: "killed at random", 2: "scaled in under load", 3: "silent, not dead", 4: "fed with rubbish"}


def main() -> int:
    """Run what is asked for."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)  # so that a SIGTERM leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-chaos-"))
    began = time.monotonic()
    bars: list[Bar] = []
    compared: dict[str, Any] = {}
    try:
        for number in options.only:
            _say(f"{number}. {SCENARIOS[number]}")
            bars += _play(number, options, folder / str(number), compared)
    except BaseException:
        _say(f"the logs are in {folder}")
        raise
    if options.keep or not all(bar.ok for bar in bars):
        _say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude("chaos", bars, began, seed=options.seed, quick=options.quick, stock_celery=compared)


def _play(number: int, options: argparse.Namespace, folder: Path, compared: dict[str, Any]) -> list[Bar]:
    quick = options.quick
    if number == 1:
        how_many = (4, 1, 1) if quick else (36, 12, 5)
        bars, _ = kills.run(folder / "stoker", options.seed, options.jobs, how_many, _say)
        if not quick:
            compared.update(stock.run(folder / "stock", options.seed, max(300, options.jobs * 3 // 10), (36, 5), _say))
        return bars
    if number == 2:
        return drains.run(folder, 10 if quick else 200, _say)
    if number == 3:
        return silence.run(folder, _say, 15.0 if quick else silence.PARTITION_S)
    return hostile.run(folder, options.seed, 100 if quick else 1100, _say)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the kills and the messages")
    parser.add_argument("--jobs", type=int, help="of scenario 1; by default 10000, or 300 with --quick")
    parser.add_argument("--only", default="1,2,3,4", help="scenarios to run, such as 1,3")
    parser.add_argument("--quick", action="store_true", help="small numbers: bars on amounts are then not reached")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the append-only files")
    options = parser.parse_args()
    options.jobs = options.jobs or (300 if options.quick else 10_000)
    try:
        options.only = sorted({int(number) for number in options.only.split(",")})
    except ValueError:
        parser.error(f"--only {options.only}: allowed are numbers such as 1,3")
    if not set(options.only) <= SCENARIOS.keys():
        parser.error(f"--only {options.only}: allowed are {', '.join(map(str, SCENARIOS))}")
    return options


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
