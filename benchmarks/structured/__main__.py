"""Structured output: 300 schemas and 50 expressions on a model of random weights, and what constraints cost.

python -m benchmarks.structured [--schemas 300] [--regexes 50] [--places 16] [--tokens 24] [--rounds 3]
                                [--only validity,throughput,libraries]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.bars import Bar, conclude

from .libraries import compare
from .throughput import measure
from .validity import check

PARTS = ("validity", "throughput", "libraries")


def main() -> int:
    """Run the parts that are asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--schemas", type=int, default=300)
    options.add_argument("--regexes", type=int, default=50)
    options.add_argument("--places", type=int, default=16)
    options.add_argument("--tokens", type=int, default=24)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default=",".join(PARTS))
    asked = options.parse_args()
    only = asked.only.split(",")
    began, bars, more = time.monotonic(), list[Bar](), dict[str, object]()
    if "validity" in only:
        bars += check(asked.schemas, asked.regexes)
    if "throughput" in only:
        bars += measure(asked.places, asked.tokens, asked.rounds)
    if "libraries" in only:
        more["libraries"] = compare(asked.schemas)
    return conclude("structured", bars, began, **more)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # for its tiny models
    sys.exit(main())
