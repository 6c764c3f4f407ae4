"""Error isolation: an error of one model, or of one step of a round, does not stop the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from producer.contract.server.redis_errors import cannot_serve

if TYPE_CHECKING:
    import logging


class IsolatedErrors:
    """Logs errors instead of raising them: once when an error begins, not in every round while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._known: dict[str, str] = {}

    @contextlib.contextmanager
    def isolated(self, subject: str, consequence: str) -> Iterator[None]:
        """A context that logs an exception and ends normally.

        Args:
            subject: names the part of the round; repetitions are recognised by it.
            consequence: what does not happen because of the error, for the log.

        Raises:
            redis.RedisError: Redis cannot serve now (:func:`~producer.contract.server.redis_errors.cannot_serve`).
        """
        try:
            yield
        except Exception as error:  # whatever the cause
            if cannot_serve(error):
                raise
            said = f"{type(error).__name__}: {error}"
            if self._known.get(subject) != said:
                self.log.exception("%s: %s", subject, consequence)
            self._known[subject] = said
        else:
            self._known.pop(subject, None)


FAILED_ROUNDS = 3
"""Failed rounds in a row from which on ``stoker status`` and ``deploy.health`` show them: one failure may pass."""


class FailedRounds:
    """Counts rounds that fail in a row, and logs each cause once when it begins, not in every round while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._count = 0
        self._cause = ""

    def failed(self, error: Exception, interval_s: float) -> str:
        """Count a failure. Returns what is published about it; empty for fewer than :data:`FAILED_ROUNDS` in a row."""
        cause = f"{type(error).__name__}: {error}"
        if cause != self._cause:
            self.log.error("this round failed; the next one is in %g s", interval_s, exc_info=error)
        self._count, self._cause = self._count + 1, cause
        if self._count < FAILED_ROUNDS:
            return ""
        if self._count == FAILED_ROUNDS:
            self.log.error("%d rounds in a row failed: nothing is started or drained", FAILED_ROUNDS)
        return f"{self._count} rounds of the autoscaler in a row failed, nothing is started or drained: {cause}"

    def succeeded(self) -> None:
        """Count a round without failure."""
        if self._count:
            self.log.info("rounds succeed again, after %d that failed", self._count)
        self._count, self._cause = 0, ""
