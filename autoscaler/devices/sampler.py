"""NvmlSampler: calls to the driver on a thread of their own, so that a call that never returns blocks no round."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

WAIT_S = 1.0
"""Seconds that a reader waits for a sample that was begun for it. A healthy driver takes about 0.05 s."""
HUNG_S = 4.0
"""Seconds after which a single call counts as hanging: four times the slowest that was measured."""
OLD_S = 30.0
"""Seconds up to which a sample is used when a driver is slow but answers."""


class NoAnswer(Exception):
    """No usable sample: the call in progress hangs, or the last sample is too old."""


class NotYet(NoAnswer):
    """No sample yet: the first one is in progress."""


class NvmlSampler(Generic[T]):
    """Takes one sample at a time, each on a daemon thread, which is abandoned if it never ends.

    Args:
        name: the name of the threads.
        take: takes a sample, with calls made through :meth:`call`. Its exception is raised by :meth:`read`.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, take: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._take = take
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calling: tuple[str, float] | None = None
        self._result: Callable[[], T] | None = None
        self._ended_at = clock()
        self._fresh = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call within a sample; its name is reported if it hangs."""
        self._calling = getattr(function, "__name__", "a call"), self._clock()
        try:
            return function(*arguments)
        finally:
            self._calling = None

    def begin(self) -> None:
        """Begin a sample, unless one is in progress."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()

    def read(self, until: float) -> tuple[T, bool]:
        """The last sample, and whether this is its first reading. Waits for a sample in progress, unless it hangs.

        Args:
            until: when to stop waiting, by the sampler's clock.

        Raises:
            NoAnswer: a call hangs (the message names it), or the last sample is older than :data:`OLD_S`.
            NotYet: the first sample is in progress.
            Exception: what taking the sample raised.
        """
        thread = self._thread
        if thread is not None and not self._hanging():
            thread.join(max(0.0, until - self._clock()))
        with self._lock:
            if hanging := self._hanging():
                raise NoAnswer(hanging)
            age = self._clock() - self._ended_at
            if self._result is None:
                raise NotYet("no answer yet")
            if age > OLD_S:
                raise NoAnswer("the last answer is too old")
            fresh, self._fresh = self._fresh, False
            result = self._result
        return result(), fresh

    @property
    def busy(self) -> bool:
        """Whether a sample is in progress."""
        return self._thread is not None

    def _hanging(self) -> str:
        calling = self._calling
        if calling is None or self._clock() - calling[1] < HUNG_S:
            return ""
        return f"{calling[0]} does not return"

    def _run(self) -> None:
        result: Callable[[], T]
        try:
            sample = self._take()
        except Exception as error:  # the reader's to handle
            result = _raising(error)
        else:
            result = _giving(sample)
        with self._lock:
            self._result, self._ended_at, self._fresh, self._thread = result, self._clock(), True, None


def _giving(sample: T) -> Callable[[], T]:
    return lambda: sample


def _raising(error: Exception) -> Callable[[], Any]:
    def give() -> Any:
        raise error.with_traceback(None)  # it may be raised more than once

    return give
