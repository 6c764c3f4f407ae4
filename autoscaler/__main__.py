"""``python -m autoscaler``: the autoscaler as a process, with local workers.

Exit codes: 0 after SIGTERM or SIGINT, 2 when the configuration is wrong or there is no device to use.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_file import FleetFile
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import connect
from producer.contract.server.server_requirements import check_at_start
from scheduler.periodic import Periodic

from .clock_steps import ClockSteps
from .controller import Controller
from .devices.nvml import LocalProbe, choose_probe
from .dry_run import ConsoleSink, DryRunLauncher, DryRunLease
from .journal import Journal
from .launchers.local import LocalLauncher
from .upkeep.cancellations import PAUSE_S, fix_results
from .upkeep.revocations import LOOK_S, Revocations
from .upkeep.sweep import Sweep


def main() -> int:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m autoscaler", description=__doc__)
    parser.add_argument("--fleet", default=os.environ.get("STOKER_FLEET", "fleet.toml"), help="the fleet file")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; do and write nothing")
    os.umask(0o077)  # logs and records, its own and its workers'
    options = parser.parse_args()
    path = Path(options.fleet).absolute()
    level = logging.WARNING if options.dry_run else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        fleet = FleetFile(path, fixed=("devices", "use_gpus"), part="autoscaler")
        controller = _controller(fleet, path, dry=options.dry_run)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: controller.interrupt())
    if options.dry_run:
        controller.run()
    else:
        _run_and_hear(controller, fleet.settings)
    controller.redis.close()
    return 0


def _run_and_hear(controller: Controller, settings: Settings) -> None:
    """Run the rounds, and remember meanwhile what stock applications revoke and end what producers cancel."""
    with connect(settings) as redis, connect(settings) as waiting:
        revocations = Revocations(redis, settings)
        hearing = Periodic("remembering what is revoked", LOOK_S, revocations.remember)
        ending = Periodic("ending what is cancelled", PAUSE_S, partial(fix_results, waiting, settings))
        hearing.start()
        ending.start()
        controller.run()
        hearing.stop()
        ending.stop()
        revocations.close()


def _controller(fleet: FleetFile, path: Path, *, dry: bool) -> Controller:
    settings = fleet.settings
    url = settings.worker_redis_url
    probe = choose_probe(settings)
    expect = probe.expect if isinstance(probe, LocalProbe) else lambda _: None
    # Both variables are set, so that no worker inherits the autoscaler's own URL.
    env = {"STOKER_FLEET": str(path), "STOKER_REDIS__URL": url, "REDIS_URL": url}
    # A server that stops answering must not hold up a round for longer than the leader lease lasts.
    redis = connect(settings, socket_timeout=5, socket_connect_timeout=2)
    check_at_start(redis)
    if not dry:
        local, sweep, steps = LocalLauncher(settings.state_dir, env, collects=True), Sweep(redis), ClockSteps()
        return Controller(
            settings,
            redis,
            probe,
            local,
            sweep,
            reread=fleet.again,
            stepped_s=steps,
            expect=expect,
            excuse=sweep.excuse,
        )
    print("A dry run: nothing is started, drained or written. Ctrl-C ends it.", flush=True)
    journal = Journal(redis, sink=ConsoleSink(partial(print, flush=True)))
    launcher, lease = DryRunLauncher(settings.state_dir), DryRunLease()
    return Controller(
        settings, redis, probe, launcher, reread=fleet.again, leader=lease, journal=journal, expect=expect, learns=False
    )


if __name__ == "__main__":
    sys.exit(main())
