"""dramatiq on Redis, with its results middleware."""

from __future__ import annotations

import time

import dramatiq
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from given import NAP_S, REDELIVER_S, RETRIES, URL

backend = RedisBackend(url=URL)
# The maintenance that looks for dead workers comes by default with one command in a thousand: few jobs never get there.
broker = RedisBroker(url=URL, heartbeat_timeout=int(REDELIVER_S * 1000), maintenance_chance=10_000)
broker.add_middleware(Results(backend=backend))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True, max_retries=RETRIES)
def echo(value: str) -> str:
    """Answer with the argument."""
    if NAP_S:
        time.sleep(NAP_S)
    return value


class Peer:
    """See ``driver``."""

    def enqueue(self, jobs: int) -> list[Message]:
        """One by one; its ``group`` does the same."""
        return [echo.send(f"job {n}") for n in range(jobs)]

    def stored(self, tokens: list[Message]) -> list[bool]:
        """A result is a list of its own."""
        with backend.client.pipeline(transaction=False) as pipe:
            for message in tokens:
                pipe.exists(backend.build_message_key(message))
            return [bool(found) for found in pipe.execute()]

    def ask(self) -> None:
        """Its result is popped, blocking."""
        echo.send("ask").get_result(block=True, timeout=10_000)
