"""Listens to every result that is announced, through restarts of the server, and remembers the first of each job."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import redis as redis_py

from producer.contract import keys
from producer.contract.message import celery_message

from .arena import OUTAGE

PREFIX = keys.result("").encode()


class Announcements:
    """A thread with a subscription of its own. What is announced while it reconnects it does not hear; ``first``
    is then filled by ``catch_up``, and the append-only file knows the rest (``audit.commits``)."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis_py.Redis.from_url(url, socket_timeout=5)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)
        self.listening = threading.Event()
        self.heard: Counter[str] = Counter()
        self.first: dict[str, bytes] = {}

    def start(self) -> None:
        """Begin, and wait until it listens."""
        self._thread.start()
        self.listening.wait(30)

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()
        self._redis.close()

    def catch_up(self, job_ids: Iterable[str]) -> None:
        """Read results whose announcements were lost."""
        missing = [job_id for job_id in job_ids if job_id not in self.first]
        for start in range(0, len(missing), 1000):
            chunk = missing[start : start + 1000]
            for job_id, stored in zip(chunk, self._redis.mget([keys.result(each) for each in chunk]), strict=True):
                if celery_message.is_final(stored):
                    self.first.setdefault(job_id, stored)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
                    pubsub.psubscribe(PREFIX + b"*")
                    while not self._stopping.is_set():
                        self._hear(pubsub.get_message(timeout=0.2))
            except OUTAGE:
                self.listening.clear()
                time.sleep(0.05)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        self.listening.set()
        if message["type"] != "pmessage" or not celery_message.is_final(message["data"]):
            return
        job_id = message["channel"].removeprefix(PREFIX).decode()
        self.heard[job_id] += 1
        self.first.setdefault(job_id, message["data"])
