"""A thread that runs an action periodically until it is stopped, whatever the action raises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from producer.contract.server.redis_errors import cannot_serve

logger = logging.getLogger(__name__)


class Periodic:
    """Runs ``action`` every ``interval_s`` seconds in a thread of its own.

    An outage of Redis is reported once when it begins and once when it ends.
    """

    def __init__(self, name: str, interval_s: float, action: Callable[[], object]) -> None:
        self.name = name
        self._interval_s = interval_s
        self._action = action
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with a first run at once."""
        self._thread.start()

    def stop(self) -> None:
        """End after the run in progress."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        away = False
        while True:
            try:
                self._action()
                if away:
                    logger.info("%s: Redis serves again", self.name)
                away = False
            except Exception as error:
                if not cannot_serve(error):
                    logger.exception("%s failed, trying again", self.name)
                elif not away:
                    logger.warning("%s: Redis cannot serve now (%s), trying again", self.name, error)
                    away = True
            if self._stopping.wait(self._interval_s):
                return
