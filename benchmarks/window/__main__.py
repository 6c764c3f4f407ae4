"""The batch window beside greedy, fixed windows, no batching and the clairvoyant best, on the same arrivals.

python -m benchmarks.window [--jobs 30000] [--error 0.1] [--real-jobs 2000] [--seed 1] [--only virtual,real] [--quick]
                            [--workers N] [--plot docs/images/window.png]

On virtual clocks over the whole grid (about 10 minutes on 2 cores), each cell until its standard error is ``--error``
points, and on the embed engine with a real model over a few of its cells (about 13 minutes). ``--quick`` takes a few
minutes, and then misses bars: what learns needs time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from .cell import Measured, measure, measure_all
from .devices import Real
from .grid import Cell, cells, few
from .report import bars, draw, table

PARTS = ("virtual", "real")
say = Console(stderr=True)


def real(jobs: int, seed: int) -> list[Measured]:
    """A few cells on the embed engine. Its line is measured first."""
    device = Real()
    line = device.line("minilm")
    say.print(f"a batch of n takes {1000 * line.per_job:.2f} n + {1000 * line.fixed:.2f} ms")
    grid: Iterable[Cell] = track(list(few(line)), "cells on the embed engine", console=say)
    found = [measure(cell, jobs, seed, device.seconds) for cell in grid]
    device.close()
    return found


def main() -> int:
    """Measure; tables for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=30_000, help="jobs in a virtual cell, at least")
    parser.add_argument("--error", type=float, default=0.1, help="standard error of a virtual cell, in points")
    parser.add_argument("--real-jobs", type=int, default=2000, help="jobs in a cell on the real engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas: virtual, real")
    parser.add_argument("--quick", action="store_true", help="2,000 jobs in a virtual cell, 50 in a real one")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--plot", type=Path, help="where to draw the virtual cells, as a PNG")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: allowed are {', '.join(PARTS)}")
    torch.set_num_threads(1)  # beside others, more threads are slower
    found: dict[str, list[Measured]] = {}
    if "virtual" in parts:
        jobs, error = (2000, math.inf) if options.quick else (options.jobs, options.error)
        found["virtual"] = measure_all(list(cells()), jobs, options.seed, options.workers, say, error)
        if options.plot:
            draw(found["virtual"], options.plot)
    if "real" in parts:
        found["real"] = real(50 if options.quick else options.real_jobs, options.seed)
    for part, measured in found.items():
        Console(width=200).print(table(measured, part))
    reached = [bar for part, measured in found.items() for bar in bars(measured, part)]
    lines = {part: [each.line() for each in measured] for part, measured in found.items()}
    print(json.dumps({"benchmark": "window", "cells": lines, "bars": [bar.line() for bar in reached]}))
    return 0 if all(bar.ok for bar in reached) else 1


if __name__ == "__main__":
    raise SystemExit(main())
