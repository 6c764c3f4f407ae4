"""Trouble with one model, or one step of a round, that must not be the others'."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import redis as redis_py

if TYPE_CHECKING:
    import logging

AWAY = (redis_py.ConnectionError, redis_py.TimeoutError, redis_py.BusyLoadingError)
"""Redis itself is away: everybody's trouble."""


class Troubles:
    """Logs each trouble when it begins, not every second while it lasts."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._known: dict[str, str] = {}

    @contextlib.contextmanager
    def of(self, whom: str, consequence: str) -> Iterator[None]:
        """Keep whatever is raised inside, but that Redis is away, from ending the round.

        Args:
            whom: a model, or what else is to be told from the others.
            consequence: what does not happen because of it.
        """
        try:
            yield
        except AWAY:
            raise
        except Exception as error:  # whatever the cause
            said = f"{type(error).__name__}: {error}"
            if self._known.get(whom) != said:
                self.log.exception("%s: %s", whom, consequence)
            self._known[whom] = said
        else:
            self._known.pop(whom, None)
