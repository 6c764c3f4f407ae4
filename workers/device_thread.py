"""The one thread that owns the device: it loads the engine, steps it, and passes its reports to the event loop."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import state

from producer.contract.errors import StokerError

from .engines.protocol import Engine, Report

logger = logging.getLogger(__name__)

STEP_S = 0.5
"""Longest wait for work before the thread checks whether it should end, in seconds."""

EXIT_LOAD_FAILED = 3
EXIT_ENGINE_LOST = 4


class DeviceThread:
    """Runs an engine on its own thread. A failure becomes an exit code in Celery's ``worker.state.should_stop``."""

    def __init__(self, engine: Engine, model: str, name: str) -> None:
        self.engine = engine
        self.ready_at: float | None = None
        """When the model was loaded, in seconds of the monotonic clock."""
        self.lost = False
        """Whether the engine, or the worker around it, has failed: its jobs are abandoned."""
        self._model = model
        self._name = name
        self._told: queue.SimpleQueue[Iterable[Report]] = queue.SimpleQueue()
        # Not Hub.call_soon: a call that its callback defers in turn waits until any socket is readable, up to a second.
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def ring_fd(self) -> int:
        """A file descriptor: a byte written to it wakes the event loop."""
        return self._ring.fileno()

    def start(self) -> None:
        """Start loading the model."""
        self._thread.start()

    def watch(self, loop: Any, on_reports: Callable[[], None]) -> None:
        """Have a loop call back whenever there are reports, including earlier ones."""
        loop.add_reader(self._bell.fileno(), on_reports)
        self.tell([])

    def tell(self, reports: Iterable[Report]) -> None:
        """Pass reports to the event loop. Thread-safe."""
        self._told.put(reports)
        with contextlib.suppress(BlockingIOError):  # the buffer is full of wake-ups: one is enough
            self._ring.send(b"\0")

    def reports(self) -> list[Report]:
        """The reports since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        found: list[Report] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.extend(self._told.get_nowait())
        return found

    def stop(self) -> None:
        """End the thread and free the device. Requests that the engine still holds get no outcome."""
        self._stopping.set()
        self.engine.withdraw()  # ends its wait for work
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * STEP_S + 5)

    def _run(self) -> None:
        try:
            self.engine.load()
        except Exception as error:
            told = isinstance(error, StokerError)  # its message needs no traceback
            logger.critical("model %s could not be loaded: %s", self._model, error, exc_info=not told)
            state.should_stop = EXIT_LOAD_FAILED
            return
        self.ready_at = time.monotonic()
        logger.info("model %s is ready on %s", self._model, self._name)
        self.tell([])  # wakes the transport: there is capacity now
        try:
            while not self._stopping.is_set():
                if reports := self.engine.step(STEP_S):
                    self.tell(reports)
        except Exception:
            logger.critical("the engine of model %s is lost", self._model, exc_info=True)
            self.lost = True
            state.should_stop = EXIT_ENGINE_LOST
        finally:
            self.engine.close()
