"""A fleet with gateways before it, for the tests: real processes, echoes in the place of models."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from deploy.machine.ports import free_port
from gateway.access import api_key_store
from gateway.access.api_key import ApiKey
from processes import Fleet, wait_for
from producer.contract import keys

TABLES = """
[gateway]
webhook_hosts = ["127.0.0.1:*"]

[models.talk]
engine = "echo"
max_concurrency = 64
options = { task = "generate", delay_s = 0.002 }

[models.vectors]
engine = "echo"
options = { task = "embeddings" }

[models.plain]
engine = "echo"

[models.asleep]
engine = "echo"
options = { task = "generate" }
limits = { max_queued = 2 }

[tenants."*"]
queue_share = 1
"""
"""``asleep`` has no worker: its jobs stay in their queues."""


class Gatewayed(Fleet):
    """A fleet, and its gateways."""

    def __init__(self, folder: Path, url: str, tables: str = TABLES) -> None:
        super().__init__(folder, url, tables)
        self.ports: list[int] = []

    def empty(self, model: str) -> None:
        """Have nothing queued for a model, in its queues or its tenants' lanes."""
        queues = [keys.queue(model, tier) for tier in self.settings.models[model].tiers]
        self.redis.delete(*queues, *self.redis.scan_iter(f"stoker:*:{model}"))

    def gateway(self, *arguments: str, tls: ssl.SSLContext | None = None) -> str:
        """Start a gateway and wait until it is ready; returns its URL. With ``tls`` it is spoken to by that."""
        port = free_port()
        name = f"gateway-{port}"
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "gateway", "--port", str(port), *arguments],
                env={**os.environ, "STOKER_FLEET": str(self.file)},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None, self.log(name).read_text()
            try:
                return httpx2.get(f"{url}/readyz", timeout=5, verify=tls or True).is_success
            except httpx2.TransportError:
                return False

        wait_for(ready, name)
        return url

    def batches(self) -> None:
        """Start a batch process, without waiting for it."""
        with self.log("batches").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway.batches"],
                env={**os.environ, "STOKER_FLEET": str(self.file)},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a process as an operator would."""
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def key(self, tenant: str = "default", **limits: Any) -> str:
        """Make an API key."""
        secret, kept = ApiKey.new(tenant, **limits)
        api_key_store.add(self.redis, secret, kept)
        return secret
