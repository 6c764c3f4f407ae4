"""What the queue costs: the same requests through the fleet and through the engine by hand, in pairs.

python -m benchmarks.queue_tax [--rounds 6] [--scale 1] [--only generation,embeddings,embeddings-of-32]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bars import Bar

from .pairs import summary
from .taxed import measure
from .workload import Work, bundles, prompts, single_texts

FLEET_FILE = Path(__file__).parents[2] / "fleet.toml"

WORKS = {
    work.name: work
    for work in (
        Work("generation", "smollm2", "output tokens", prompts(64), bar=0.97),
        Work("embeddings", "minilm", "inputs", single_texts(1600), bar=0.93),
        Work("embeddings-of-32", "minilm", "inputs", bundles(50, 32)),
    )
}
"""By name. As long as they are, a run takes 15 to 20 s on one core."""


def table(works: list[Work], found: dict[str, dict[str, Any]]) -> Table:
    """For people."""
    shown = Table("work", "fleet/engine, median", "quartiles", "fleet", "engine", "batch", "CPU more a job")
    for work in works:
        of = found[work.name]
        shown.add_row(
            work.name,
            f"{of['ratio']:.3f}",
            "{:.3f} to {:.3f}".format(*of["ratio_quartiles"]),
            f"{of['fleet_rate']:,.1f} {work.unit}/s",
            f"{of['engine_rate']:,.1f} {work.unit}/s",
            f"{of['fleet_batch']:.1f} and {of['engine_batch']:.1f}",
            f"{of['cpu_us_per_job']:,} us",
        )
    return shown


def bars(works: list[Work], found: dict[str, dict[str, Any]]) -> list[Bar]:
    """The promised ratios."""
    return [
        Bar(f"{work.name}: throughput of the fleet over the engine's", found[work.name]["ratio"], work.bar, "higher")
        for work in works
        if work.bar is not None
    ]


def main() -> int:
    """Measure; a table for people and a line for machines. Returns 0 when every bar is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests")
    parser.add_argument("--only", default=",".join(WORKS))
    options = parser.parse_args()
    works = [WORKS[name].share(options.scale) for name in options.only.split(",")]
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            work.name: summary(pairs)
            for work, pairs in measure(
                works,
                options.rounds,
                fleet_file=FLEET_FILE,
                folder=Path(folder),
                device="cpu:0",
                say=console.print,
            )
        }
    Console().print(table(works, found))
    reached = bars(works, found)
    print(json.dumps({"benchmark": "queue_tax", "works": found, "bars": [bar.line() for bar in reached]}))
    return 0 if all(bar.ok for bar in reached) else 1


if __name__ == "__main__":
    raise SystemExit(main())
