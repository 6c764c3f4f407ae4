"""A monitor, as Flower is one: it hears Celery's task events, and counts the jobs that were told to have succeeded."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

from celery import Celery


class Monitor:
    """Connected from entering until leaving. Without a receiver, events might be dropped or not sent at all."""

    def __init__(self, url: str) -> None:
        self.succeeded = 0
        self._app = Celery("monitor", broker=url, set_as_current=False)
        self._connection = self._app.connection_for_read()
        self._receiver = self._app.events.Receiver(self._connection, handlers={"task-succeeded": self._count})
        self._thread = threading.Thread(target=self._receiver.capture, kwargs={"wakeup": False}, name="monitor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._connection.release()
        self._app.close()

    def wait_for(self, jobs: int, deadline_s: float = 5.0) -> int:
        """How many jobs were told of, once that is as many as expected or the time is up."""
        deadline = time.monotonic() + deadline_s
        while self.succeeded < jobs and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.succeeded

    def _count(self, _: dict[str, Any]) -> None:
        self.succeeded += 1
