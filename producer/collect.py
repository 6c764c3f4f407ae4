"""Collecting results: one connection waits for many jobs, which may come and go meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .contract import keys
from .contract.errors import StokerError
from .contract.message import celery_message
from .contract.message.job import Result

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

RECHECK_S = 5.0
"""How often the collector looks for itself, should a notification have been missed, in seconds."""

AT_ONCE = 500
"""Most results handed out, or looked up, in one step: bounds the memory, and how long Redis is blocked."""


class Collector:
    """Hands out the stored results of the jobs it was given, each once, as they end.

    A connection that breaks is an error of that one call; the next call connects again and looks whether
    anything ended meanwhile. So does the first call in a forked process: two processes that read from one connection
    would take each other's announcements. Not thread-safe.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pubsub: PubSub | None = None
        self._process = os.getpid()
        self._waiting: dict[bytes, str] = {}  # channel, which is also the result's key -> job id
        self._unsubscribed: list[bytes] = []
        self._unconfirmed: set[bytes] = set()
        # Looked up only once Redis has confirmed the subscription, so that no result slips between the two.
        self._confirmed: list[bytes] = []
        self._look_at = 0.0
        self._found: list[tuple[str, bytes]] = []  # kept until handed out, should the connection break first

    def __len__(self) -> int:
        """How many jobs it has not handed out yet."""
        return len(self._waiting) + len(self._found)

    def add(self, job_ids: Iterable[str]) -> None:
        """Wait for these jobs too. One that it already waits for is waited for once."""
        for job_id in job_ids:
            name = keys.result(job_id).encode()
            if name not in self._waiting:
                self._waiting[name] = job_id
                self._unsubscribed.append(name)

    def poll(self, timeout: float) -> list[tuple[str, bytes]]:
        """Job ids with their stored results, as soon as there are any; none after ``timeout`` seconds.

        Returns at once when it waits for no job.

        Raises:
            redis.RedisError: Redis cannot serve now, for one; call it again.
        """
        deadline = time.monotonic() + timeout
        try:
            pubsub = self._subscribe()
            while self._waiting and len(self._found) < AT_ONCE:
                idle = not self._found and not self._confirmed
                wait = min(deadline, self._look_at) - time.monotonic() if idle else 0.0
                message: dict[str, Any] | None = pubsub.get_message(timeout=max(0.0, wait))
                if message is not None:
                    self._read(message)
                elif ended := self._to_look_up():
                    self._look_up(ended)
                elif self._unconfirmed and time.monotonic() >= deadline:
                    # Asked not to wait any longer: what ended before is found all the same.
                    self._confirmed, self._unconfirmed = list(self._unconfirmed), set()
                elif self._found or time.monotonic() >= deadline:
                    break
            if self._found:
                names = [keys.result(job_id).encode() for job_id, _ in self._found]
                pubsub.unsubscribe(*names)
        except BaseException:
            self.close()  # whatever was under way on the connection, the next call starts afresh
            raise
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Give up the connection. What was not handed out yet can still be polled for."""
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None

    def _subscribe(self) -> PubSub:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if self._pubsub is None:
            self._pubsub = self._redis.pubsub()
            self._unsubscribed = list(self._waiting)
            self._unconfirmed, self._confirmed = set(), []
        if self._unsubscribed:
            self._look_at = time.monotonic() + RECHECK_S
            self._pubsub.subscribe(*self._unsubscribed)
            self._unconfirmed.update(self._unsubscribed)
            self._unsubscribed = []
        return self._pubsub

    def _read(self, message: dict[str, Any]) -> None:
        name = message["channel"]
        if message["type"] == "subscribe":
            self._unconfirmed.discard(name)
            self._confirmed.append(name)
        elif message["type"] == "message" and celery_message.is_final(message["data"]) and name in self._waiting:
            self._found.append((self._waiting.pop(name), message["data"]))

    def _to_look_up(self) -> list[bytes]:
        if self._confirmed:
            # One may be there twice: taken for granted when nobody waited any longer, and then confirmed.
            names = dict.fromkeys(self._confirmed[:AT_ONCE])
            del self._confirmed[:AT_ONCE]
            return [name for name in names if name in self._waiting]
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + RECHECK_S
            self._confirmed = list(self._waiting)
            return self._to_look_up()
        return []

    def _look_up(self, names: list[bytes]) -> None:
        for name, stored in zip(names, self._redis.mget(names), strict=True):
            if isinstance(stored, bytes) and celery_message.is_final(stored):
                self._found.append((self._waiting.pop(name), stored))


def outcome(stored: bytes) -> Result | StokerError:
    """The result of a job that ended, or its failure as a value."""
    try:
        return celery_message.decode(stored)
    except StokerError as error:
        return error
