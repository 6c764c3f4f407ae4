"""A consumer in the test's own process: it answers jobs as a worker does, and remembers which it ran."""

from __future__ import annotations

import base64
import json
import threading
from itertools import count

import redis as redis_py

from producer.contract.fleet.settings import Settings
from scheduler.lease.queue import Queue


class Consumer(threading.Thread):
    """Echoes the jobs of a model, up to ``limit`` of them; an input ``refuse`` fails. Ends with the test."""

    def __init__(self, settings: Settings, model: str, limit: float = float("inf"), remember: bool = True) -> None:
        super().__init__(daemon=True)
        self.limit = limit
        self.ran: list[str] = []
        self.count = 0
        self._remember = remember
        self._redis = redis_py.Redis.from_url(settings.redis_url)
        self._queue = Queue(self._redis, settings, model)
        self._ending = threading.Event()

    def run(self) -> None:
        """Claim and answer."""
        for n in count():
            if self._ending.wait(0.002):
                return
            try:
                for job in self._queue.claim(int(min(16, self.limit - self.count)), f"test.{n}"):
                    self._serve(job.lease, job.message)
            except (redis_py.ConnectionError, redis_py.TimeoutError):
                continue

    def _serve(self, lease: str, message: bytes) -> None:
        envelope = json.loads(message)
        fields = json.loads(base64.b64decode(envelope["body"]))[1]
        self.count += 1
        if self._remember:
            self.ran.append(fields["idempotency_key"].partition(":")[2])
        refused = fields["input"] == "refuse"
        error = {"exc_type": "InvalidJob", "exc_message": ["refused"], "exc_module": "producer.errors"}
        meta = {
            "status": "FAILURE" if refused else "SUCCESS",
            "result": error if refused else {"output": fields["input"]},
            "task_id": envelope["headers"]["id"],
        }
        self._queue.finish([(lease, envelope["headers"]["id"], json.dumps(meta).encode())])

    def end(self) -> None:
        """Stop."""
        self._ending.set()
        self.join()
        self._redis.close()
