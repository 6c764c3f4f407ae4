"""``python -m benchmarks.devices``: break GPUs that a stand-in for NVML makes up, and see what the autoscaler does.

The autoscaler, its workers (of the echo engine), pynvml and the server are real. Prints what happens, a table, and,
as its last line, one JSON object. Exit code 0 when every figure reaches its bar. Takes about a minute.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bars import conclude
from producer.contract.errors import StokerError

from . import drill


def main() -> int:
    """Play the drill."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="heat, the bus and an XID error, each once")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which leaves nothing behind either
    folder = Path(tempfile.mkdtemp(prefix="stoker-devices-"))
    began = time.monotonic()
    try:
        bars, _ = drill.run(folder, lambda text: print(text, flush=True), short=options.quick)
    except StokerError as error:
        print(f"benchmarks.devices: {error}", file=sys.stderr)
        return 2
    except BaseException:
        print(f"the logs are in {folder}", flush=True)
        raise
    well = all(bar.ok for bar in bars)
    if options.keep or not well:
        print(f"the logs are in {folder}", flush=True)
    else:
        shutil.rmtree(folder)
    return conclude("devices", bars, began, quick=options.quick)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
