"""The engine by hand: a process that loads it, and drives it through the runs that it is given.

    python -m benchmarks.queue_tax.direct --model minilm --device cpu:0

One run a line on standard input, as JSON; one answer a line on standard output.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from producer import Settings
from workers.engines.protocol import Engine, Outcome, Request
from workers.engines.registry import create

from .pairs import Run
from .workload import Ask, Work

STEP_S = 0.5
"""How long a step may wait for work, as in the worker's pool."""


def drive(engine: Engine, requests: Iterable[Request]) -> list[Outcome]:
    """Run requests in their order, the engine always filled to its capacity; their outcomes, in the order of ending."""
    waiting = list(requests)[::-1]
    held = 0
    outcomes: list[Outcome] = []
    while waiting or held:
        while waiting and held < engine.capacity:
            engine.submit(waiting.pop())
            held += 1
        ended = [report for report in engine.step(STEP_S) if isinstance(report, Outcome)]
        held -= len(ended)
        outcomes += ended
    return outcomes


def timed(engine: Engine, requests: list[Request], work: Work) -> Run:
    """One run.

    Raises:
        StokerError: when a request failed; then the time means nothing.
    """
    begun, cpu_begun = time.perf_counter(), time.process_time()
    outcomes = drive(engine, requests)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_begun
    units = 0
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        units += work.units(len(outcome.outputs or ()), outcome.usage)
    return Run(seconds, len(outcomes), units, statistics.mean(each.batch_size for each in outcomes), cpu_s)


class Direct:
    """That process, seen from outside: idle until it is told to run."""

    def __init__(self, folder: Path, fleet_file: Path, model: str, device: str) -> None:
        self._log = folder / f"{model}-direct.log"
        self._command = [sys.executable, "-m", __name__, "--model", model, "--device", device]
        self._environment = {**os.environ, "STOKER_FLEET": str(fleet_file.absolute()), "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> Self:
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded."""
        self._answer()

    def run(self, work: Work) -> Run:
        """One run of the work."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(work)) + "\n")
        self._process.stdin.flush()
        return Run(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine's process ended: see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Load, then run what comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    engine = create(Settings.load().model(options.model), options.device)
    engine.load()
    ids = map(str, itertools.count())
    answers.write("{}\n")
    for line in sys.stdin:
        given = json.loads(line)
        work = Work(**{**given, "asks": [Ask(**ask) for ask in given["asks"]]})
        requests = [Request(next(ids), list(ask.inputs), ask.parameters) for ask in work.asks]
        answers.write(json.dumps(asdict(timed(engine, requests, work))) + "\n")


if __name__ == "__main__":
    main()
