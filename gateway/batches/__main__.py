"""``python -m gateway.batches``: the batch process of a fleet. SIGINT and SIGTERM end it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from producer.contract.errors import StokerError
from producer.contract.fleet.fleet_file import FleetFile

from .batch_process import Runner


def main() -> int:
    """Run until told to end."""
    argparse.ArgumentParser(prog="python -m gateway.batches", description=__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        fleet = FleetFile(fixed=("gateway",), part="batches")
        runner = Runner(fleet.settings, fleet.again)
    except StokerError as error:
        print(f"stoker batches: {error}", file=sys.stderr)
        return 2
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: runner.stop())
    runner.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
