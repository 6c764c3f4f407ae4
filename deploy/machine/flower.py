"""Flower, the monitor: it listens on loopback, requires a password, and uses Kombu's Redis transport.

Flower recognises brokers by the name of their transport, and its broker page answers 404 for an unknown one. It
therefore connects with ``redis://`` like a producer, not with the transport of the workers.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from celery import Celery
from kombu import Exchange, Queue
from kombu.utils.url import parse_url

from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import broker_url, transport_options

from . import ports, private

USER = "stoker"


def password_file(settings: Settings) -> Path:
    """The file that holds Flower's password, readable by its owner only."""
    return settings.state_dir / "flower-password"


def port_file(settings: Settings) -> Path:
    """The file that records Flower's port, so that its URL stays the same across runs."""
    return settings.state_dir / "flower.port"


def url(settings: Settings) -> str | None:
    """Flower's URL, without the password; None when it has never run here."""
    return ports.address(port_file(settings))


def authorization(settings: Settings) -> str:
    """The value of the ``Authorization`` header that Flower's API requires."""
    pair = f"{USER}:{private.kept_password(password_file(settings))}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def spawn(settings: Settings, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start Flower and return at once. It gets its previous port if that is free, else a new one."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.machine.flower"],
            stdout=output,
            stderr=output,
            env={**environment, "FLOWER_PORT": str(ports.kept_port(port_file(settings)))},
            start_new_session=True,
        )


def answers(settings: Settings) -> bool:
    """Whether Flower's API answers a request with the password now."""
    return ports.answers(url(settings), "/api/workers", {"Authorization": authorization(settings)})


def celery_app(settings: Settings) -> Celery:
    """A Celery application that reads events and results of the fleet, and has no tasks."""
    broker = broker_url(settings)
    app = Celery("stoker", broker=broker, backend=broker)
    # With Sentinel, the options name the group of the master; Flower's own connection reads them from here as well.
    app.conf.broker_transport_options = app.conf.result_backend_transport_options = transport_options(settings)
    if broker.startswith("rediss://"):
        app.conf.broker_use_ssl = parse_url(broker)["ssl"]  # Flower's own connection ignores the TLS options of the URL
    queues = [keys.queue(name, tier) for name, model in settings.models.items() for tier in model.tiers]
    app.conf.update(
        # The queues that Flower shows until a worker is up.
        task_queues=[Queue(queue, Exchange(""), routing_key=queue) for queue in queues],
        task_default_queue=queues[0] if queues else "celery",  # Flower queries the length of this one as well
        accept_content=["json"],
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
    )
    return app


def main() -> None:
    """Run Flower until a signal stops it. The environment variables ``FLOWER_*`` set its options.

    The password is read from its file into this process's environment, so that no command line shows it.
    """
    settings = Settings.load()
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    if "FLOWER_BASIC_AUTH" not in os.environ:
        os.environ["FLOWER_BASIC_AUTH"] = f"{USER}:{private.kept_password(password_file(settings))}"
    # The autoscaler starts and stops workers; by default Flower lists stopped ones for ever.
    os.environ.setdefault("FLOWER_PURGE_OFFLINE_WORKERS", "300")
    celery_app(settings).start(["flower"])


if __name__ == "__main__":
    main()
