"""``python -m benchmarks.field``: what goes wrong around a fleet, done to a real one.

Processes, Redis servers, pynvml and HTTP are real. Stood in for are the driver's library (``benchmarks/devices``), the
clock (a preloaded library) and the servers of models (``tests/openai_stub.py``). Prints what happens, a table, and, as
its last line, one JSON object. Exit code 0 when every figure reaches its bar. Takes about ten minutes.
"""

from __future__ import annotations

import sys

from benchmarks.situations import Situation, play

from . import answers, clock, devices, servers, spread, streams

SITUATIONS: dict[str, Situation] = {
    "streams": streams.run,
    "clock": clock.run,
    "devices": devices.run,
    "answers": answers.run,
    "servers": servers.run,
    "spread": spread.run,
}

if __name__ == "__main__":
    try:
        sys.exit(play("field", __doc__ or "", SITUATIONS))
    except KeyboardInterrupt:
        sys.exit(130)
