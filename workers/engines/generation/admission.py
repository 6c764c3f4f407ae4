"""Which sequences run: in the order in which they came, while there is a place and room in the cache for each."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from .running_batch import Generation, Sequence


class Admission:
    """Sequences waiting and running. One is admitted when its prompt and longest answer fit into the cache.

    So none is ever put out again to make room.
    """

    def __init__(self, places: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: dict[str, Sequence] = {}  # by the id of their attempt
        self.blocks = 0
        """Blocks of the cache that those that run may reserve together; none before there is a cache."""
        self._places = places
        self._ids = itertools.count()

    def wait(self, sequences: Iterable[Sequence]) -> None:
        """Let sequences wait for their turn."""
        self.waiting.extend(sequences)

    def again(self, sequence: Sequence) -> None:
        """Put one that did not come to its end in front, to run next."""
        self.running.pop(sequence.id, None)
        self.waiting.appendleft(sequence)

    def admit(self) -> tuple[str, Sequence] | None:
        """The next to run, with a new id for this attempt; None while there is no room for it."""
        if not self.waiting or not self._has_room_for(self.waiting[0]):
            return None
        sequence, sequence_id = self.waiting.popleft(), str(next(self._ids))
        self.running[sequence_id] = sequence
        for other in self.running.values():
            other.generation.batch_size = max(other.generation.batch_size, len(self.running))
        return sequence_id, sequence

    def leave(self, sequence: Sequence) -> bool:
        """Take one out that runs; False when it does not."""
        return self.running.pop(sequence.id, None) is not None

    def drop(self, generation: Generation) -> None:
        """Forget those of a request that still wait."""
        self.waiting = deque(each for each in self.waiting if each.generation is not generation)

    def clear(self) -> None:
        """Forget all."""
        self.waiting.clear()
        self.running.clear()

    def _has_room_for(self, sequence: Sequence) -> bool:
        running = self.running.values()
        if sequence.suspect or any(other.suspect for other in running):
            return not running
        reserved = sum(other.blocks for other in running)
        return len(running) < self._places and reserved + sequence.blocks <= self.blocks
