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
