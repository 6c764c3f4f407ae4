"""Flower, the monitor: on loopback, behind a password, and on the plain transport.

Flower knows brokers by their transport's name, and answers 404 on its broker page for any that is not its
own; so it connects with ``redis://`` like a producer, and never with the transport of the workers.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

from celery import Celery
from kombu import Exchange, Queue
from kombu.utils.url import parse_url

from producer.contract import keys
from producer.contract.connection import broker_url, transport_options
from producer.contract.settings import Settings

from . import ports, private

USER = "stoker"


def password_file(settings: Settings) -> Path:
    """Where the password is, readable by the owner alone."""
    return settings.state_dir / "flower-password"


def port_file(settings: Settings) -> Path:
    """Where its port is noted, so that its address stays the same from run to run."""
    return settings.state_dir / "flower.port"


def url(settings: Settings) -> str | None:
    """Its address, without the password; None when it never ran here."""
    return ports.address(port_file(settings))


def authorization(settings: Settings) -> str:
    """The value of the ``Authorization`` header that its API asks for."""
    pair = f"{USER}:{private.kept_password(password_file(settings))}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def spawn(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start it on the port it last had, if that is free. Returns at once."""
    environment = {**os.environ, "FLOWER_PORT": str(ports.kept_port(port_file(settings)))}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "deploy.machine.flower"],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def answers(settings: Settings) -> bool:
    """Whether its API answers to our password now."""
    return ports.answers(url(settings), "/api/workers", {"Authorization": authorization(settings)})


def celery_app(settings: Settings) -> Celery:
    """An application that can watch the fleet and look up its results, and run nothing."""
    broker = broker_url(settings)
    app = Celery("stoker", broker=broker, backend=broker)
    # Of sentinels, which group's master it is; Flower's own connection reads it from here, too.
    app.conf.broker_transport_options = app.conf.result_backend_transport_options = transport_options(settings)
    if broker.startswith("rediss://"):
        app.conf.broker_use_ssl = parse_url(broker)["ssl"]  # Flower's own connection does not read the URL for it
    queues = [keys.queue(name, tier) for name, model in settings.models.items() for tier in model.tiers]
    app.conf.update(
        # Until a worker has come up, these are the queues that Flower shows.
        task_queues=[Queue(queue, Exchange(""), routing_key=queue) for queue in queues],
        task_default_queue=queues[0] if queues else "celery",  # its length is asked for as well
        accept_content=["json"],
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
    )
    return app


def main() -> None:
    """Run Flower until it is told to stop. ``FLOWER_*`` set its options, as always.

    The password goes from its file into this process's own environment, so that no command line shows it.
    """
    settings = Settings.load()
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    if "FLOWER_BASIC_AUTH" not in os.environ:
        os.environ["FLOWER_BASIC_AUTH"] = f"{USER}:{private.kept_password(password_file(settings))}"
    # Workers come and go here; Flower would go on listing those that went.
    os.environ.setdefault("FLOWER_PURGE_OFFLINE_WORKERS", "300")
    celery_app(settings).start(["flower"])


if __name__ == "__main__":
    main()
