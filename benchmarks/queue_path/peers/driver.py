"""Runs inside a peer's environment, and does with its application what the benchmark asks for.

A line of JSON on stdin, a line of JSON on stdout, one after the other:

    {"do": "enqueue", "way": METHOD, "jobs": N}   -> {"took_s": SECONDS}
    {"do": "left", "all": BOOL}                   -> {"left": jobs enqueued here and not seen to have a result}
    {"do": "ask", "times": N, "pause_s": SECONDS} -> {"took_s": [SECONDS, ...]}

An application is a module with a class ``Peer``:

    enqueue(jobs)    queue that number of jobs in its fastest way; returns a token for each
    stored(tokens)   for each of those, whether it has a successful result
    ask()            queue one job and wait for its result
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

AT_ONCE = 200
"""Results looked up in one step."""


class Driver:
    """One application, and the jobs that it has queued and not yet seen answered."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.waiting: list[Any] = []

    def enqueue(self, way: str, jobs: int) -> dict[str, Any]:
        """Queue jobs, and tell how long that took."""
        begun = time.perf_counter()
        tokens = getattr(self.peer, way)(jobs)
        took_s = time.perf_counter() - begun
        self.waiting += tokens
        return {"took_s": took_s}

    def left(self, all: bool) -> dict[str, Any]:
        """Look results up, oldest first; unless ``all``, no further than where the first are missing: cheaper."""
        left: list[Any] = []
        while self.waiting and (all or not left):
            some, self.waiting = self.waiting[:AT_ONCE], self.waiting[AT_ONCE:]
            left += [token for token, stored in zip(some, self.peer.stored(some), strict=True) if not stored]
        self.waiting = left + self.waiting
        return {"left": len(self.waiting)}

    def ask(self, times: int, pause_s: float) -> dict[str, Any]:
        """Round trips, each after a pause in which the worker falls idle."""
        took_s = []
        for _ in range(times):
            time.sleep(pause_s)
            begun = time.perf_counter()
            self.peer.ask()
            took_s.append(time.perf_counter() - begun)
        return {"took_s": took_s}


def main() -> None:
    """Answer until stdin ends."""
    driver = Driver(importlib.import_module(sys.argv[1]).Peer())
    # Whatever the application prints goes to the log: stdout is for the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(driver, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
