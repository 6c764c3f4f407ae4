"""``python -m benchmarks.walls``: attacks of strangers and tenants on a real fleet, each with a neighbour beside.

Processes, Redis and HTTP are real; the engine is an echo, or the stub of a model's server. Attackers run on the same
machine and take what the fleet leaves of it. Prints what happens, a table, and, as its last line, one JSON object. Exit
code 0 when every figure reaches its bar. Takes about ten minutes.
"""

from __future__ import annotations

import sys

from benchmarks.situations import Situation, play

from . import batches, hang_ups, preemption, strangers, webhooks

WALLS: dict[str, Situation] = {
    "strangers": strangers.run,
    "hang-ups": hang_ups.run,
    "batches": batches.run,
    "webhooks": webhooks.run,
    "preemption": preemption.run,
}

if __name__ == "__main__":
    try:
        sys.exit(play("walls", __doc__ or "", WALLS))
    except KeyboardInterrupt:
        sys.exit(130)
