"""``python -m benchmarks.hostile_text``: random and hostile text through each way into a fleet.

Processes and server are real; the engine is an echo. Every message has to be answered or refused, no HTTP answer may be
5xx, and no process may end. Prints its progress on stderr, then a table and, as the last line, one JSON object. Exit
code 0 when every figure reaches its bar.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.bars import Bar, conclude
from benchmarks.chaos.arena import Arena

from . import over_http, queues, remote_control
from .stage import CONFIG, TABLES, Stage, Tally

WAYS: dict[str, Callable[[Stage, random.Random, int, Tally], None]] = {
    "client": queues.client,
    "async-client": queues.async_client,
    "jobs": over_http.jobs,
    "openai": over_http.openai,
    "batches": over_http.batches,
    "celery": queues.celery,
    "raw": queues.raw,
    "control": remote_control.control,
}


def main() -> int:
    """Send through the ways, one after the other."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-hostile-text-"))
    began = time.monotonic()
    with Arena(
        folder / "fleet", lease_s=30, options="delay_s = 0", max_concurrency=256, tables=TABLES, config=CONFIG
    ) as arena:
        stage = Stage(arena)
        stage.start()
        bars = [_play(name, stage, options) for name in options.only]
        errors = sum(tally.server_errors for tally, _ in bars)
        ended = stage.ended()
        _say(f"tracebacks in the logs: {stage.tracebacks() or 'none'}")
        ran = stage.canary.exists()
    told = [bar for _, bar in bars] + [
        Bar("messages of each way", min(tally.sent for tally, _ in bars), options.messages, "higher"),
        Bar("answers of 5xx", errors, 0),
        Bar("processes ended or started again", len(ended), 0, note=", ".join(ended)),
        Bar("hostile code run", int(ran), 0),
    ]
    if options.keep or not all(bar.ok for bar in told):
        _say(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return conclude("hostile_text", told, began, seed=options.seed, messages=options.messages)


def _play(name: str, stage: Stage, options: argparse.Namespace) -> tuple[Tally, Bar]:
    """Send through one way; what became of the messages, and the bar on those without an answer."""
    tally, began = Tally(), time.monotonic()
    _say(f"{name}: {(WAYS[name].__doc__ or '').splitlines()[0]}")
    try:
        WAYS[name](stage, random.Random(f"{name} {options.seed}"), options.messages, tally)
    except Exception:  # the others are still worth playing
        traceback.print_exc()
        tally.lose("the way was not played to its end", max(1, options.messages - tally.sent))
    took = time.monotonic() - began
    note = f"{tally.sent} sent, {tally.answered} answered, {tally.refused} refused, {took:.0f} s"
    _say(f"  {note}, {tally.lost} lost, {tally.server_errors} answers of 5xx {tally.first_fault}")
    return tally, Bar(f"{name}: unanswered", tally.lost, 0, note=note)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_text", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="through each way; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="2,000 through each way; misses no bar for that")
    parser.add_argument("--only", default=",".join(WAYS), help="comma-separated; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the messages")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    options.messages = 2000 if options.quick else options.messages
    options.only = options.only.split(",")
    if unknown := [name for name in options.only if name not in WAYS]:
        parser.error(f"no way {unknown[0]!r}; there are {', '.join(WAYS)}")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
