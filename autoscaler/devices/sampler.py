"""NvmlSampler: a question to the driver on a thread of its own, so that one that is never answered holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

WAIT_S = 1.0
"""How long a reader waits for a sample that was begun for it, in seconds. A driver that is well takes some 0.05 s."""
HUNG_S = 4.0
"""A single call that has not returned for so long counts as hanging, in seconds: four times the slowest seen."""
OLD_S = 30.0
"""Samples of a driver that is slow but answers are used up to this age, in seconds."""


class NoAnswer(Exception):
    """There is no sample that could be used: the call in progress hangs, or the last sample is too old."""


class NotYet(NoAnswer):
    """The first sample is in progress."""


class NvmlSampler(Generic[T]):
    """Takes one sample at a time, each on a thread of its own that is left behind if it never ends.

    Args:
        take: takes a sample; makes its calls through :meth:`call`. What it raises is raised to the reader.
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
        """Make a call within a sample, so that it can be named when it does not return."""
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
        """The last sample, and whether it was never read before. Waits up to ``until`` for one in progress.

        Args:
            until: by the sampler's clock. It is not waited for a call that hangs.

        Raises:
            NoAnswer: naming the call that hangs.
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
        raise error.with_traceback(None)  # it may be read more than once

    return give
