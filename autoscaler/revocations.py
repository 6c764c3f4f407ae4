"""Revocations by stock Celery, which sends them to the workers that are up and keeps none: the autoscaler hears them
too, and has them remembered in Redis. A job that is revoked with no worker up, or whose workers are replaced, stays so.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from producer.contract import keys
from producer.contract.celery_message import revoked_ids
from producer.contract.connection import database
from producer.contract.dialogue import run
from producer.contract.redis_errors import trouble
from producer.contract.withdrawal import remember

if TYPE_CHECKING:
    from redis import Redis

    from producer.contract.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Interval at which a stop is noticed, in seconds."""

PAUSE_S = 1.0
"""Pause while Redis cannot serve, in seconds."""


class Revocations:
    """Listens to the workers' mailbox on a thread of its own.

    Args:
        redis: a client with a connection to spare.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._stopping = threading.Event()
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="revocations", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End, after what was heard is remembered."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except RedisError as error:
                told = trouble(error, self._settings)
                if told != self._told:
                    log.warning("%s. Jobs that stock applications revoke meanwhile may run", told)
                self._told = told
                self._stopping.wait(PAUSE_S)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe(keys.pidbox(database(self._redis)))
            while not self._stopping.is_set():
                message = heard.get_message(timeout=LOOK_S)
                self._told = ""
                if message is not None and (ids := revoked_ids(message["data"])):
                    run(self._redis, remember(self._settings, ids))
