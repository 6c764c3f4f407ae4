"""``python -m benchmarks.queue_path``: what the way through the queue costs, ours beside eight others, in one run.

Prints its progress, a table, and, as its last line, one JSON object. Exit code 0 when every figure reaches its bar.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from producer.contract.errors import ConfigError

from . import report
from .bars import bars
from .roster import OURS, Contestant, chosen
from .round_trips import ask_in_turns
from .survival import Survival, endure_all
from .turn import Turn, play, play_wide

EXIT_BAD_CONFIG = 2


def main() -> int:
    """Run what is asked for."""
    options = _options()
    try:
        contestants = chosen(options.only)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_CONFIG
    signal.signal(signal.SIGTERM, _interrupt)  # so that a SIGTERM leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-queue-path-"))
    began = time.monotonic()
    try:
        rounds, inputs_per_s = _rounds(contestants, options, folder)
        _say(f"round trips, {options.asks} of each, in turns")
        asked_s = ask_in_turns(contestants, folder, options.asks)
        survivals: dict[str, Survival] = {}
        if not options.skip_kills:
            _say(f"kill -9, {options.kills} times each")
            survivals = endure_all(contestants, folder, options.kills, options.seed, _say)
    except BaseException:
        _say(f"the logs are in {folder}")
        raise
    found = bars(rounds, asked_s, survivals, inputs_per_s)
    report.show(rounds, asked_s, survivals, found)
    if options.keep:
        _say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    line = {
        "benchmark": "queue_path",
        "took_s": round(time.monotonic() - began, 1),
        "rounds": [{name: _figures(turn) for name, turn in each.items()} for each in rounds],
        "p50_ms": {name: round(1000 * statistics.median(took_s), 3) for name, took_s in asked_s.items()},
        "inputs_per_s": [round(value) for value in inputs_per_s],
        "survival": {name: {**asdict(each), "survives": each.survives} for name, each in survivals.items()},
        "bars": [bar.line() for bar in found],
    }
    print(json.dumps(line), flush=True)
    return 0 if all(bar.ok for bar in found) else 1


def _rounds(
    contestants: Sequence[Contestant], options: argparse.Namespace, folder: Path
) -> tuple[list[dict[str, Turn]], list[float]]:
    """Every contestant once a round, in alternating order, so that a machine that slows down slows all."""
    rounds: list[dict[str, Turn]] = []
    inputs_per_s: list[float] = []
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}")
        turns: dict[str, Turn] = {}
        for place, each in enumerate(contestants[:: -1 if number % 2 else 1]):
            turn = turns[each.name] = play(each, folder / f"{number}-{place}", options.jobs)
            heard = "" if turn.heard is None else f", events of {turn.heard:.0%} heard"
            _say(
                f"  {each.name}: {1e6 * turn.cpu_s:,.0f} us of CPU a job, {turn.throughput:,.0f} jobs/s, "
                f"{turn.rates['enqueue']:,.0f} enqueued/s{heard}"
            )
            if each.name == OURS:
                inputs_per_s.append(play_wide(each, folder / f"{number}-wide", options.wide_jobs))
                _say(f"  {each.name}: {inputs_per_s[-1]:,.0f} inputs/s, 256 a job")
        rounds.append({each.name: turns[each.name] for each in contestants})
    return rounds, inputs_per_s


def _figures(turn: Turn) -> dict[str, object]:
    return {
        "cpu_us": round(1e6 * turn.cpu_s, 1),
        "throughput": round(turn.throughput),
        "rates": {way: round(rate) for way, rate in turn.rates.items()},
        "heard": turn.heard,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_path", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000, help="of each contestant in each round")
    parser.add_argument("--asks", type=int, default=500, help="round trips of each contestant")
    parser.add_argument("--wide-jobs", type=int, default=600, help="of 256 inputs, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=8, help="of each contestant's worker")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    parser.add_argument("--only", default="", help="contestants, by how their names begin, separated by semicolons")
    parser.add_argument("--skip-kills", action="store_true", help="do not find out who survives")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    return parser.parse_args()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
