"""``python -m workers``: one worker process, for one model on one device, until it is told to drain."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import uuid

import redis

from producer.contract import heartbeat
from producer.contract.errors import StokerError
from producer.contract.fleet.settings import Settings
from producer.contract.open_files import raise_limit
from producer.contract.server.connection import connect
from producer.contract.server.server_requirements import check_at_start
from scheduler.lease.ledger import Ledger
from scheduler.lease.queue import Queue
from scheduler.periodic import Periodic

from .app import WorkerApp, make_app
from .assignment import Assignment
from .device_binding import bind
from .engines.registry import create
from .heartbeat_sender import HeartbeatSender
from .watchdog import INTERVAL_S, Watchdog

EXIT_BAD_CONFIG = 2

SWITCH_S = 0.0002
"""Interpreter switch interval in seconds. At Python's default of 5 ms, 9 ms of work on the event loop delayed a batch
of 150 ms on the device's thread by 11 ms; at this value, by 2 ms."""


def main() -> int:
    """Run a worker; returns its exit code."""
    options = _options()
    sys.setswitchinterval(SWITCH_S)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    raise_limit()
    device_uuid = options.device_uuid or bind(options.device, os.environ)
    try:
        settings = Settings.load()
        model = settings.model(options.model)
        engine = create(model, options.device)
        client = connect(settings)
        check_at_start(client)
    except StokerError as error:
        logging.critical("%s", error)
        return EXIT_BAD_CONFIG
    ledger = Ledger(Queue(client, settings, options.model), options.name)
    device_type = options.device_type or options.device.partition(":")[0]
    assignment = Assignment(
        options.name, options.model, options.device, settings, engine, ledger, device_type, device_uuid
    )
    app = make_app(assignment)
    return serve(app, client, options.launched_by)


def serve(app: WorkerApp, client: redis.Redis, launched_by: str) -> int:
    """Run Celery's worker and its periodic threads until it is drained."""
    assignment = app.assignment
    queue = assignment.ledger.queue
    app.remote.restrict()
    worker = app.Worker(
        hostname=f"{assignment.name}@{socket.gethostname()}",
        concurrency=assignment.settings.model(assignment.model).max_concurrency,
        without_mingle=True,  # revocations are kept in Redis, not by asking the neighbours
        without_gossip=True,
        loglevel="INFO",
        quiet=True,
    )
    app.worker = worker

    def renew() -> None:
        if (lost := assignment.ledger.renew()) and app.engine_pool is not None:
            app.engine_pool.lose(lost)

    heart = HeartbeatSender(app, client, launched_by)
    companions = [
        # A third of the lease, so that two renewals may fail before a job is taken over.
        Periodic("lease renewal", queue.lease_s / 3, renew),
        Periodic("reaper", min(5.0, queue.lease_s / 3), queue.reap),
        Periodic("heartbeat", heartbeat.INTERVAL_S, heart.beat),
        Periodic("watchdog", INTERVAL_S, Watchdog(app).look),
    ]
    for companion in companions:
        companion.start()
    try:
        worker.start()
    finally:
        # After the pool has drained: its leases must be renewed until then.
        for companion in companions:
            companion.stop()
        heart.stop()
    return int(worker.exitcode or 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--model", required=True, help="a model of fleet.toml")
    parser.add_argument("--device", required=True, help="cpu:0, cuda:0, ...")
    parser.add_argument("--device-type", help="type by which speeds are measured, such as a GPU's product name")
    parser.add_argument("--device-uuid", default="", help="UUID of the device; by default read from the driver")
    parser.add_argument("--name", help="name, unique in the fleet; by default the model and a random suffix")
    parser.add_argument("--launched-by", default="", help="id of the launcher that may drain it; by default none may")
    options = parser.parse_args()
    options.name = options.name or f"{options.model}-{uuid.uuid4().hex[:6]}"
    return options


if __name__ == "__main__":
    sys.exit(main())
