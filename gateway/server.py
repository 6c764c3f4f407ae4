"""Running a gateway: its address, and the conditions under which it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import uvicorn

from producer.contract import open_files
from producer.contract.errors import ConfigError
from producer.contract.fleet.fleet_file import FleetFile
from producer.contract.fleet.settings import Settings
from producer.contract.server.connection import close, connect
from producer.contract.server.redis_errors import broker_errors
from producer.contract.server.server_requirements import check_at_start

from .access import api_key_store
from .access.same_origin import is_loopback
from .app import create_app
from .http.connection_guard import guarded

DRAIN_S = 10
"""Seconds that running requests get when the gateway is told to end; then their jobs are cancelled."""

MOST_CONNECTIONS = 10_000
BACKLOG = 128
"""Connections that the system holds for the gateway until it looks at them, all of which it may then accept at once."""
OWN_FILES = BACKLOG + 32
"""Files beside those of connections that are counted: new ones, Redis, and files of batches."""


@dataclass(frozen=True, slots=True)
class Listen:
    """The address to listen on, and the certificate."""

    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def loopback(self) -> bool:
        """Whether the address is on loopback."""
        return is_loopback(self.host)


def serve(fleet: FleetFile, listen: Listen) -> None:
    """Run a gateway until SIGINT or SIGTERM.

    Raises:
        ConfigError: it would listen beyond loopback without any API key, or the certificate is incomplete.
        UnsuitableServer: Redis lacks what Stoker needs.
        BrokerUnavailable: Redis cannot be asked for API keys.
    """
    settings = fleet.settings
    if (listen.tls_cert is None) != (listen.tls_key is None):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    for file in (listen.tls_cert, listen.tls_key):
        if file is not None and not file.is_file():
            raise ConfigError(f"{file} is not a file: give one in PEM format")
    _check_redis(settings)
    if not listen.loopback and not _has_key(settings):
        raise ConfigError(
            f"nobody has an API key, so everybody who reaches {listen.host} could use the fleet: "
            "make one with 'stoker keys create', or listen on 127.0.0.1"
        )
    open_files.raise_limit()
    uvicorn.run(
        create_app(settings, listen.loopback, fleet.again),
        host=listen.host,
        port=listen.port,
        ssl_certfile=listen.tls_cert,
        ssl_keyfile=listen.tls_key,
        access_log=False,
        log_level="error",  # a warning for each malformed request would let strangers fill the log
        http=guarded(min(MOST_CONNECTIONS, open_files.limit() - OWN_FILES)),
        ws="none",
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
    )


def _check_redis(settings: Settings) -> None:
    redis = connect(settings)
    try:
        check_at_start(redis)
    finally:
        close(redis)


def _has_key(settings: Settings) -> bool:
    redis = connect(settings)
    try:
        with broker_errors(settings, "looking for API keys"):
            return any(key.revoked_at is None for key in api_key_store.read_all(redis))
    finally:
        close(redis)
