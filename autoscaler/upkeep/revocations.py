"""Revocations by stock Celery, which sends them to the workers that are up and keeps none: the autoscaler hears them
too, and has them remembered in Redis. A job that is revoked with no worker up, or whose workers are replaced, stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from producer.contract import keys
from producer.contract.message.celery_message import revoked_ids
from producer.contract.queue.withdrawal import remember
from producer.contract.server.connection import database
from producer.contract.server.dialogue import run

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

    from producer.contract.fleet.settings import Settings

LOOK_S = 0.5
"""Interval at which what was heard is remembered, in seconds."""


class Revocations:
    """Hears the workers' mailbox; :meth:`remember` is to be called every ``LOOK_S`` seconds.

    Args:
        redis: a client with a connection to spare.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._heard: PubSub | None = None

    def remember(self) -> None:
        """Remember what was revoked since the last call; the first begins to listen.

        Raises:
            RedisError: Redis is away, and what is revoked meanwhile is lost. The next call listens anew.
        """
        try:
            if self._heard is None:
                self._heard = self._redis.pubsub(ignore_subscribe_messages=True)
                self._heard.subscribe(keys.pidbox(database(self._redis)))
                self._heard.get_message()  # the confirmation
            while (message := self._heard.get_message()) is not None:
                if ids := revoked_ids(message["data"]):
                    run(self._redis, remember(self._settings, ids))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Listen no longer."""
        if self._heard is not None:
            self._heard.close()
            self._heard = None
