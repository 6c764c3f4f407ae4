"""Ours: its worker is ``python -m workers``, its client ``producer.Client``, set up by the fleet file."""

from __future__ import annotations

from pydantic import JsonValue

from producer import Client, Settings
from producer.contract import keys
from producer.contract.server.connection import connect

MODEL = "echo"
INPUTS = 256
"""Inputs of a wide job."""


class Peer:
    """See ``driver``."""

    def __init__(self) -> None:
        settings = Settings.load()
        self.client = Client(settings)
        self.redis = connect(settings)

    def enqueue(self, jobs: int) -> list[str]:
        """All in one pipelined write."""
        return self.client.submit_many(self.client.job(MODEL, f"job {n}") for n in range(jobs))

    def enqueue_singly(self, jobs: int) -> list[str]:
        """One by one."""
        return [self.client.submit(MODEL, f"job {n}") for n in range(jobs)]

    def enqueue_wide(self, jobs: int) -> list[str]:
        """Each with many inputs."""
        inputs: list[str | dict[str, JsonValue]] = [f"input {n}" for n in range(INPUTS)]
        return self.client.submit_many(self.client.job(MODEL, inputs) for _ in range(jobs))

    def stored(self, tokens: list[str]) -> list[bool]:
        """A result is a string of its own."""
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in tokens:
                pipe.exists(keys.result(job_id))
            return [bool(found) for found in pipe.execute()]

    def ask(self) -> None:
        """Its result is announced."""
        self.client.result(self.client.submit(MODEL, "ask"), timeout=10)
