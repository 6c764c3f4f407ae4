"""Trouble with one model, or one step of a round, that must not be the others'."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from producer.contract.redis_errors import cannot_serve

if TYPE_CHECKING:
    import logging


class Troubles:
    """Logs each trouble when it begins, not every second while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._known: dict[str, str] = {}

    @contextlib.contextmanager
    def of(self, whom: str, consequence: str) -> Iterator[None]:
        """Keep whatever is raised inside, but that Redis cannot serve now, from ending the round.

        Args:
            whom: a model, or what else is to be told from the others.
            consequence: what does not happen because of it.
        """
        try:
            yield
        except Exception as error:  # whatever the cause
            if cannot_serve(error):
                raise
            said = f"{type(error).__name__}: {error}"
            if self._known.get(whom) != said:
                self.log.exception("%s: %s", whom, consequence)
            self._known[whom] = said
        else:
            self._known.pop(whom, None)


FAILED_ROUNDS = 3
"""Failed rounds in a row that are told in ``stoker status`` and to ``deploy.health``: one may be a slip."""


class FailedRounds:
    """Rounds that fail in a row. Each cause is logged when it begins, not every second while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._count = 0
        self._cause = ""

    def failed(self, error: Exception, interval_s: float) -> str:
        """Note one more failure. Returns what is to be told to others; empty while it may be a slip."""
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
        """A round did not fail."""
        if self._count:
            self.log.info("rounds succeed again, after %d that failed", self._count)
        self._count, self._cause = 0, ""
