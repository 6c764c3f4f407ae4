"""``python -m benchmarks.simulator``: how fast and how true the simulator is, and how good the policies are in it.

Prints its progress, a table, and, as its last line, one JSON object. Exit code 0 when every figure reaches its bar.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.bars import Bar, conclude

FIGURES = {
    1: ("calibration", "a real run beside its simulation"),
    2: ("speed", "a million requests over a thousand devices"),
    3: ("oracle", "the policy beside one that knows the future, and beside a threshold"),
    4: ("harvest", "offline work behind interactive work"),
    6: ("estimates", "what was foretold to those who wait, and what became of it"),
    7: ("zoo", "whether another policy is better in both, on load that none was tuned on"),
    9: ("routing", "pulling from one queue beside pushing to one worker"),
}
"""By number: the module beside this file that measures it, and what it is. Each has a function ``run``, which takes the
options and returns its bars."""


def main() -> int:
    """Run what is asked for."""
    options = _options()
    began = time.monotonic()
    bars: list[Bar] = []
    for number in options.only:
        module, what = FIGURES[number]
        print(f"{number}. {what}", flush=True)
        bars += importlib.import_module(f"benchmarks.simulator.{module}").run(options)
    return conclude("simulator", bars, began, seed=options.seed, quick=options.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn")
    parser.add_argument("--only", default=",".join(map(str, FIGURES)), help="figures to measure, such as 1,2")
    parser.add_argument("--quick", action="store_true", help="small numbers: bars on amounts are then not reached")
    parser.add_argument(
        "--traces",
        type=Path,
        default=Path("../shared/traces"),
        help="where the public traces lie (default: %(default)s)",
    )
    parser.add_argument("--plot", type=Path, help="a picture of figure 3: devices over time")
    options = parser.parse_args()
    try:
        options.only = sorted({int(number) for number in options.only.split(",")})
    except ValueError:
        parser.error(f"--only {options.only}: allowed are numbers such as 1,3")
    if not set(options.only) <= FIGURES.keys():
        parser.error(f"--only {options.only}: allowed are {', '.join(map(str, FIGURES))}")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
